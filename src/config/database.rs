//! Where the database is, and with it the one secret of the configuration.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// `[database]`
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// A `postgres://` URL or a `key=value` list; once read, also where it came out of `url_file`.
    #[serde(default)]
    pub url: String,
    /// A file that holds the URL, which has a password in it; instead of `url`.
    pub url_file: Option<PathBuf>,
    /// For LISTEN, where `url` leads to a pooler in transaction mode; empty: `url`.
    #[serde(default)]
    pub notify_url: String,
    /// A file that holds that URL; instead of `notify_url`.
    pub notify_url_file: Option<PathBuf>,
    /// Connections held at most, beside the one that listens.
    #[serde(default = "default_pool_size")]
    pub pool_size: usize,
    /// Whether `serve` applies missing migrations.
    #[serde(default)]
    pub migrate_on_start: bool,
    /// Where the file is, for the paths in the URLs.
    #[serde(skip)]
    pub folder: PathBuf,
}

impl std::fmt::Debug for DatabaseConfig {
    /// Leaves the URLs out: they can hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseConfig")
            .field("pool_size", &self.pool_size)
            .field("migrate_on_start", &self.migrate_on_start)
            .finish_non_exhaustive()
    }
}

fn default_pool_size() -> usize {
    8
}

/// Of two keys for the same thing: what the environment says of one goes before what the file says of the other.
pub(super) fn override_in_pairs(overrides: &mut Vec<(String, String)>) {
    for pair in [
        ["DATABASE__URL", "DATABASE__URL_FILE"],
        ["DATABASE__NOTIFY_URL", "DATABASE__NOTIFY_URL_FILE"],
    ] {
        let is_set =
            pair.map(|key| overrides.iter().any(|(name, _)| name.eq_ignore_ascii_case(key)));
        for (key, unset) in pair.into_iter().zip([is_set == [false, true], is_set == [true, false]])
        {
            if unset {
                overrides.push((key.to_owned(), String::new()));
            }
        }
    }
}

impl DatabaseConfig {
    /// The same, with what its files hold; their paths and those in the URLs are relative to a folder.
    pub(super) fn below(mut self, folder: &Path) -> Result<Self, String> {
        for (key, url, file) in [
            ("url", &mut self.url, &self.url_file),
            ("notify_url", &mut self.notify_url, &self.notify_url_file),
        ] {
            let Some(file) = file.as_ref().filter(|file| !file.as_os_str().is_empty()) else {
                continue;
            };
            if !url.is_empty() {
                return Err(format!("database.{key} and database.{key}_file are both set"));
            }
            let text = fs::read_to_string(folder.join(file))
                .map_err(|error| format!("database.{key}_file cannot be read: {error}"))?;
            text.trim().clone_into(url);
            if url.is_empty() {
                return Err(format!("database.{key}_file is empty"));
            }
        }
        if self.url.is_empty() {
            return Err("database.url is missing, and so is database.url_file".to_owned());
        }
        self.folder = folder.to_owned();
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    const TOKENS: &str = "[auth.tokens]\nfile = \"t.toml\"\n";

    fn read(database: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("url"), "postgres://u:secret@h/d\n").expect("written");
        std::fs::write(folder.path().join("empty"), "\n").expect("written");
        let file = folder.path().join("a.toml");
        std::fs::write(&file, format!("[database]\n{database}\n{TOKENS}")).expect("written");
        Config::read(&file, Vec::new())
    }

    #[test]
    fn a_url_can_be_in_a_file_beside_the_configuration() {
        let config = read("url_file = \"url\"\nnotify_url_file = \"url\"").expect("well-formed");
        assert_eq!(config.database.url, "postgres://u:secret@h/d", "without the end of the line");
        assert_eq!(config.database.notify_url, config.database.url);
    }

    #[test]
    fn what_the_environment_names_goes_before_the_other_key_of_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("url"), "postgres://in-the-file").expect("written");
        let given = |key: &str, value: &str| vec![(format!("DATABASE__{key}"), value.to_owned())];
        for (written, overrides, expected) in [
            ("url = \"x\"", given("URL_FILE", "url"), ["postgres://in-the-file", ""]),
            ("url_file = \"nowhere\"", given("URL", "y"), ["y", ""]),
            ("url_file = \"nowhere\"", given("url", "y"), ["y", ""]),
            (
                "url = \"x\"\nnotify_url = \"x\"",
                given("NOTIFY_URL_FILE", "url"),
                ["x", "postgres://in-the-file"],
            ),
            ("url = \"x\"\nnotify_url_file = \"nowhere\"", given("NOTIFY_URL", "y"), ["x", "y"]),
        ] {
            let file = folder.path().join("a.toml");
            std::fs::write(&file, format!("[database]\n{written}\n{TOKENS}")).expect("written");
            let database = Config::read(&file, overrides).expect(written).database;
            assert_eq!([database.url, database.notify_url], expected, "{written}");
        }
        let both = [given("URL", "y"), given("URL_FILE", "url")].concat();
        let fault = Config::read(&folder.path().join("a.toml"), both).expect_err("which of them?");
        assert!(fault.contains("both"), "{fault}");
    }

    #[test]
    fn there_is_one_url_and_no_fault_repeats_it() {
        for (database, why) in [
            ("", "database.url is missing"),
            ("url = \"\"", "database.url is missing"),
            ("url_file = \"empty\"", "database.url_file is empty"),
            ("url_file = \"nowhere\"", "database.url_file cannot be read"),
            ("url = \"postgres://u:secret@h/d\"\nurl_file = \"url\"", "both"),
            ("url_file = \"url\"\nnotify_url = \"x\"\nnotify_url_file = \"url\"", "both"),
        ] {
            let fault = read(database).expect_err(database);
            assert!(fault.contains(why) && !fault.contains("secret"), "{fault}");
        }
    }
}
