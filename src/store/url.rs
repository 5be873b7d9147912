//! Database URLs, and what they say of TLS. The client's own parser knows neither `verify-full` nor an authority of
//! one's own, and its `require` would take any certificate; so those parameters are taken out and read here.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use percent_encoding::percent_decode_str;
use tokio_postgres::{Config, config::Host};

use crate::error::Error;

/// A database, and how it must prove that it is the one.
#[derive(Debug)]
pub(super) struct Url {
    /// All that the client's parser knows.
    pub(super) config: Config,
    /// `sslmode`
    mode: Mode,
    /// `sslrootcert`; none: the authorities that the system trusts.
    pub(super) authorities: Option<PathBuf>,
}

/// What is said about TLS. There is no encryption without verification: it would keep out nobody who can stand in
/// the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Nothing: TLS, but for hosts that are this machine.
    Unsaid,
    /// Plaintext, by name.
    Plain,
    /// TLS, with the certificate and the host's name verified.
    Verified,
}

impl Url {
    /// Reads a `postgres://` URL or a `key=value` list, whose paths are relative to a folder. No error repeats the
    /// URL, which may hold a password.
    pub(super) fn parse(key: &str, url: &str, folder: &Path) -> Result<Self, Error> {
        let invalid = |why: String| Error::invalid(key, why);
        let (rest, said) = split(url);
        let (mut mode, mut authorities) = (Mode::Unsaid, None);
        for (name, value) in said {
            match (name, value.as_str()) {
                (Parameter::RootCert, "system") => authorities = None,
                (Parameter::RootCert, path) => authorities = Some(folder.join(path)),
                (Parameter::Mode, "disable") => mode = Mode::Plain,
                (Parameter::Mode, "prefer") => mode = Mode::Unsaid,
                (Parameter::Mode, "require" | "verify-full") => mode = Mode::Verified,
                (Parameter::Mode, _) => {
                    let known = "sslmode must be verify-full, require (which means the same), prefer or disable";
                    return Err(invalid(known.to_owned()));
                }
            }
        }
        match (mode, &authorities) {
            (Mode::Plain, Some(_)) => {
                return Err(invalid("has an sslrootcert that sslmode=disable ignores".to_owned()));
            }
            (Mode::Unsaid, Some(_)) => mode = Mode::Verified,
            _ => {}
        }
        let config: Config =
            rest.parse().map_err(|error| invalid(format!("is no database URL: {error}")))?;
        if config.get_hosts().is_empty() {
            return Err(invalid("names no host".to_owned()));
        }
        Ok(Self { config, mode, authorities })
    }

    /// Whether sessions with one of its hosts are protected by TLS. PostgreSQL has none on unix sockets.
    pub(super) fn is_verified(&self, host: &Host, address: Option<&IpAddr>) -> bool {
        let Host::Tcp(name) = host else { return false };
        match self.mode {
            Mode::Plain => false,
            Mode::Verified => true,
            Mode::Unsaid => match address.copied().or_else(|| name.parse().ok()) {
                Some(address) => !address.is_loopback(),
                None => name != "localhost",
            },
        }
    }
}

/// The parameters that are read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parameter {
    Mode,
    RootCert,
}

impl Parameter {
    fn named(name: &str) -> Option<Self> {
        match name {
            "sslmode" => Some(Self::Mode),
            "sslrootcert" => Some(Self::RootCert),
            _ => None,
        }
    }
}

type Said = Vec<(Parameter, String)>;

/// Parts those parameters from the rest, which stays as it is. Should the two parsers ever see a text differently,
/// a parameter that is missed here meets one that refuses `verify-full` and `sslrootcert`, and of which no `sslmode`
/// is used.
fn split(url: &str) -> (String, Said) {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        split_url(url)
    } else {
        split_list(url)
    }
}

fn split_url(url: &str) -> (String, Said) {
    // A question mark in a password is none.
    let after_user = url.find('@').unwrap_or(0);
    let Some(begin) = url[after_user..].find('?').map(|at| after_user + at) else {
        return (url.to_owned(), Vec::new());
    };
    let mut said = Vec::new();
    let others = url[begin + 1..].split('&').filter(|pair| {
        let Some((name, value)) = pair.split_once('=') else { return true };
        let Some(name) = Parameter::named(&percent_decode_str(name).decode_utf8_lossy()) else {
            return true;
        };
        said.push((name, percent_decode_str(value).decode_utf8_lossy().into_owned()));
        false
    });
    let others = others.collect::<Vec<_>>().join("&");
    (format!("{}?{others}", &url[..begin]), said)
}

fn split_list(list: &str) -> (String, Said) {
    let (mut others, mut said) = (String::new(), Vec::new());
    let mut left = list.trim_start();
    while let Some((name, after)) = left.split_once('=') {
        let value = after.trim_start();
        let (text, length) = value_of(value);
        match Parameter::named(name.trim()) {
            Some(name) => said.push((name, text)),
            None => {
                others.push_str(&left[..left.len() - value.len() + length]);
                others.push(' ');
            }
        }
        left = value[length..].trim_start();
    }
    others.push_str(left);
    (others, said)
}

/// The value that a text begins with, and its length as it is written: up to a space, or in quotes; a backslash
/// stands before a character that means itself.
fn value_of(text: &str) -> (String, usize) {
    let is_quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(is_quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if is_quoted => return (value, at + 1),
            space if space.is_whitespace() && !is_quoted => return (value, at),
            other => value.push(other),
        }
    }
    (value, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Url, String> {
        Url::parse("database.url", url, Path::new("/etc/aa")).map_err(|error| format!("{error:?}"))
    }

    /// For each of its hosts, whether TLS protects it.
    fn verified(url: &str) -> Vec<bool> {
        let url = parse(url).expect(url);
        let hosts = url.config.get_hosts().iter().enumerate();
        hosts.map(|(i, host)| url.is_verified(host, url.config.get_hostaddrs().get(i))).collect()
    }

    #[test]
    fn what_leaves_this_machine_is_protected_unless_plaintext_is_named() {
        for (hosts, expected) in [
            ("db", true),
            ("10.0.0.1", true),
            ("localhost.example.com", true),
            ("127.0.0.1", false),
            ("127.9.9.9", false),
            ("::1", false),
            ("localhost", false),
            ("/run/postgresql", false),
            ("db hostaddr=127.0.0.1", false),
            ("localhost hostaddr=10.0.0.1", true),
        ] {
            for (mode, expected) in
                [("", expected), ("sslmode=prefer", expected), ("sslmode=disable", false)]
            {
                let url = format!("host={hosts} user=u {mode}");
                assert_eq!(verified(&url), [expected], "{url}");
            }
        }
        assert_eq!(verified("postgres://u@localhost,db:5433,[::1]/d"), [false, true, false]);
    }

    #[test]
    fn what_must_be_verified_is_but_for_unix_sockets() {
        for mode in ["sslmode=verify-full", "sslmode=require", "sslrootcert=ca.pem"] {
            assert_eq!(verified(&format!("host=127.0.0.1,db,/run {mode}")), [true, true, false]);
            assert_eq!(verified(&format!("postgres://u@localhost/d?{mode}")), [true]);
        }
    }

    #[test]
    fn both_forms_are_read_and_the_rest_is_left_alone() {
        for url in [
            "postgres://u:p%20w@db:5433/d?sslmode=verify-full&connect_timeout=7&sslrootcert=ca.pem",
            "postgresql://u:p%20w@db:5433/d?ssl%6Dode=verify-full&sslrootcert=%63a.pem&connect_timeout=7",
            "host=db sslmode = 'verify-full' port=5433 user=u password='p w' dbname=d sslrootcert=ca.pem connect_timeout=7",
            "sslrootcert='ca.pem' host=db port=5433 user=u password=p\\ w dbname=d connect_timeout=7 sslmode=verify\\-full",
        ] {
            let read = parse(url).expect(url);
            assert_eq!(read.mode, Mode::Verified, "{url}");
            assert_eq!(read.authorities, Some(PathBuf::from("/etc/aa/ca.pem")), "{url}");
            assert_eq!(read.config.get_user(), Some("u"), "{url}");
            assert_eq!(read.config.get_password(), Some(&b"p w"[..]), "{url}");
            assert_eq!(read.config.get_ports(), [5433], "{url}");
            assert_eq!(read.config.get_dbname(), Some("d"), "{url}");
            assert_eq!(read.config.get_connect_timeout().map(|t| t.as_secs()), Some(7), "{url}");
        }
        let absolute = parse("host=db sslrootcert=/ca.pem").expect("well-formed");
        assert_eq!(absolute.authorities, Some(PathBuf::from("/ca.pem")));
        let system = parse("host=db sslmode=verify-full sslrootcert=system").expect("well-formed");
        assert_eq!((system.mode, system.authorities), (Mode::Verified, None));
    }

    #[test]
    fn what_looks_like_a_parameter_and_is_none_changes_nothing() {
        for url in [
            "postgres://u:a?sslmode=disable@db/d",
            "host=db user=u password='x sslmode=disable'",
            "host=db user=u password=x\\ sslmode=disable",
            "host=db user=u password='it\\'s sslmode=disable'",
        ] {
            assert_eq!(verified(url), [true], "{url}");
        }
    }

    #[test]
    fn the_password_cannot_be_printed() {
        for url in ["postgres://u:s3cret@h/d", "host=h user=u password=s3cret"] {
            let read = parse(url).expect(url);
            let (url, notify_url) = (url.to_owned(), Some(url.to_owned()));
            let folder = PathBuf::new();
            let config = super::super::StoreConfig { url, notify_url, pool_size: 8, folder };
            assert!(!format!("{config:?}{read:?}").contains("s3cret"), "{config:?} {read:?}");
        }
    }

    #[test]
    fn no_slip_shows_the_password() {
        for url in [
            "postgres://u:s3cret@h:port/d",
            "postgres://u:s3cret@h/d?x",
            "postgres://u:s3cret@h/d?connect_timeout=s",
            "postgres://u:12@s3cret:x@h/d",
            "postgres//u:s3cret@h/d",
            "host=h user=u password='s3cret",
            "host=h user=u password=12 s3cret=x",
            "host=h user=u password=12 s3cret",
            "host=h port=s3cret user=u",
            "s3cret",
        ] {
            let refused = parse(url).expect_err(url);
            assert!(!refused.contains("s3cret"), "{refused}");
        }
    }

    #[test]
    fn what_is_weaker_than_it_sounds_is_refused() {
        for url in [
            "postgres://u@db/d?sslmode=verify-ca",
            "host=db sslmode=allow",
            "host=db sslmode=VERIFY-FULL",
            "host=db sslmode=",
            "host=db sslmode=disable sslrootcert=ca.pem",
            "sslmode=verify-full",
            "host=db password=secret nonsense",
            "postgres://u:secret@db/d?nonsense=1",
        ] {
            let refused = parse(url).expect_err(url);
            assert!(!refused.contains("secret"), "{refused}");
        }
    }
}
