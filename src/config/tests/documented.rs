//! `docs/configuration.md` and the README, against what is taken.

use std::{collections::BTreeSet, fs};

use tempfile::TempDir;

use super::*;

/// A key as the table has it.
struct Key {
    name: String,
    kind: &'static str,
    /// What is said before the value: nothing, if it is the default.
    standing: &'static str,
    /// As in a file.
    value: &'static str,
}

/// All of them, and a place for the files that they name.
struct Table {
    keys: Vec<Key>,
    folder: TempDir,
}

impl Table {
    fn new() -> Self {
        let text = include_str!("../../../docs/configuration.md");
        let (_, chapter) = text.split_once("\n## Keys\n").expect("the chapter");
        let chapter = chapter.split("\n## ").next().expect("its text");
        let rows = chapter.lines().filter(|line| line.starts_with("| `"));
        let keys: Vec<Key> = rows
            .map(|row| {
                let cells: Vec<&str> = row.trim_matches('|').split(" |").map(str::trim).collect();
                let (standing, value) = cells[2].split_once('`').expect("a value");
                Key {
                    name: cells[0].trim_matches('`').replace("NAME", "corp"),
                    kind: cells[1],
                    standing: standing.trim(),
                    value: value.trim_end_matches('`'),
                }
            })
            .collect();
        assert!(keys.len() > 30, "{}", keys.len());
        Self { keys, folder: tempfile::tempdir().expect("a folder") }
    }

    /// A file that sets each key that is wanted; and no file of a URL, beside the URL itself.
    fn file(&self, wanted: impl Fn(&str) -> bool) -> String {
        let keys = self.keys.iter().filter(|key| !key.name.ends_with("url_file"));
        let keys = keys.filter(|key| wanted(&key.name));
        keys.map(|key| format!("{} = {}\n", key.name, key.value)).collect()
    }

    /// All that was read, the URLs included.
    fn read(&self, text: &str, overrides: &[(&str, &str)]) -> Result<String, String> {
        let file = self.folder.path().join("a.toml");
        fs::write(&file, text).expect("written");
        let overrides = overrides.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let config = Config::read(&file, overrides.collect())?;
        let DatabaseConfig { url, notify_url, .. } = &config.database;
        Ok(format!("{config:?} {url:?} {notify_url:?}"))
    }

    fn is_taken(&self, text: &str) -> String {
        self.read(text, &[]).unwrap_or_else(|fault| panic!("{fault}:\n{text}"))
    }
}

#[test]
fn every_key_that_is_written_down_is_taken_and_stands_as_it_says() {
    let table = Table::new();
    for Key { name, standing, .. } in &table.keys {
        if name.ends_with("url_file") {
            continue;
        }
        // They would miss the authorities of clients, which are unset by themselves.
        let wanted = |key: &str| *standing != "unset; as" || !key.starts_with("auth.mtls");
        let with = table.is_taken(&table.file(wanted));
        let mut rest = table.file(|key| wanted(key) && key != name);
        let (section, key) = name.rsplit_once('.').expect("a section");
        if !rest.contains(section) {
            rest += &format!("{section} = {{}}\n");
        }
        let without = table.read(&rest, &[]);
        match *standing {
            "" => assert_eq!(without.as_ref(), Ok(&with), "{name} has another default"),
            "unset; as" => assert!(without.is_ok_and(|without| without != with), "{name}"),
            "needed, as" => {
                let fault = without.expect_err(name);
                assert!(fault.contains(key), "{name}: {fault}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_url_comes_out_of_its_file_too() {
    let table = Table::new();
    let whole = table.is_taken(&table.file(|_| true));
    let files: Vec<&Key> = table.keys.iter().filter(|key| key.name.ends_with("_file")).collect();
    assert_eq!(files.len(), 2);
    for Key { name, value, .. } in files {
        let instead_of = name.trim_end_matches("_file");
        let url = table.keys.iter().find(|key| key.name == instead_of).expect("what it holds");
        let url = Some(url.value.trim_matches('"')).filter(|url| !url.is_empty());
        let file = table.folder.path().join(value.trim_matches('"'));
        fs::write(file, url.unwrap_or("postgres://other/d")).expect("written");
        let rest = table.file(|key| key != instead_of);
        let read = table.is_taken(&format!("{name} = {value}\n{rest}"));
        assert_eq!(read == whole, url.is_some(), "{name}: {read}");
        let (variable, value) = as_variable(name, value);
        assert_eq!(table.read(&rest, &[(&variable, &value)]), Ok(read), "{variable}");
    }
}

#[test]
fn every_key_can_be_set_by_its_variable() {
    let table = Table::new();
    let whole = table.is_taken(&table.file(|_| true));
    for Key { name, value, .. } in &table.keys {
        if name.ends_with("url_file") {
            continue;
        }
        let (variable, value) = as_variable(name, value);
        let read = table.read(&table.file(|key| key != name), &[(&variable, &value)]);
        assert_eq!(read.as_ref(), Ok(&whole), "{variable}");
    }
}

/// What comes of a key that is set by its variable, as in a file.
fn as_variable(key: &str, value: &str) -> (String, String) {
    let variable = format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"));
    let given = override_of(variable.as_ref(), value.trim_matches('"').as_ref());
    given.expect("no slip").expect("a key")
}

#[test]
fn every_value_is_of_the_type_that_is_written() {
    let table = Table::new();
    for Key { name, kind, .. } in &table.keys {
        let set = |value: &str| {
            table.read(&format!("{name} = {value}\n{}", table.file(|key| key != name)), &[])
        };
        let refused = |value: &str| assert!(set(value).is_err(), "{name} = {value}");
        let taken = |value: &str| assert!(set(value).is_ok(), "{name} = {value}: {:?}", set(value));
        let named: Vec<&str> = kind.split('`').skip(1).step_by(2).collect();
        match kind.split([' ', ',', '`']).next().expect("a type") {
            "text" | "path" => continue,
            "URL" if kind.ends_with("path") => continue,
            "address" | "boolean" | "URL" => {}
            "count" => {
                let least: usize = named[0].parse().expect("a count");
                refused(&(least - 1).to_string());
            }
            "duration" => {
                let least = duration::parse(named[0].trim_matches('"')).expect("a duration");
                refused(&format!("\"{:#}\"", least - SignedDuration::from_millis(1)));
                // All are written in one way.
                taken("\"90d\"");
            }
            "" => {}
            other => panic!("{name}: {other}"),
        }
        refused("\"surely not\"");
        named.into_iter().for_each(taken);
    }
}

#[test]
fn every_key_that_is_taken_is_written_down() {
    let table = Table::new();
    let mut sections = BTreeSet::from([String::new()]);
    for Key { name, .. } in &table.keys {
        let dots = name.match_indices('.').map(|(dot, _)| dot + 1);
        sections.extend(dots.map(|end| name[..end].to_owned()));
    }
    // Any name will do there.
    assert!(sections.remove("auth.jwt."));
    for section in sections {
        let below = table.keys.iter().filter_map(|key| key.name.strip_prefix(&section));
        let written: BTreeSet<&str> =
            below.map(|key| key.split('.').next().expect("a key")).collect();
        let text = format!("{section}surely_none = 1\n{}", table.file(|_| true));
        let fault = table.read(&text, &[]).expect_err("an unknown key");
        // It names those that there are.
        let (_, known) = fault.split_once("expected ").expect(&fault);
        let known: BTreeSet<&str> = known.split('`').skip(1).step_by(2).collect();
        assert_eq!(written, known, "[{section}]");
    }
}

#[test]
fn the_configuration_in_the_readme_is_taken() {
    let readme = include_str!("../../../README.md");
    let blocks = readme.split("```toml\n").skip(1).map(|block| block.split("```").next());
    let blocks: Vec<&str> = blocks.flatten().filter(|block| block.contains("[server]")).collect();
    assert_eq!(blocks.len(), 1);
    Table::new().is_taken(blocks[0]);
}
