//! What concerns certificates.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::auth::mtls::Subject;

/// `[server.tls]`: PEM files, read again when they change.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The server's certificate, and the chain behind it.
    pub cert: PathBuf,
    /// The private key that belongs to it.
    pub key: PathBuf,
    /// The authorities of client certificates; unset: callers are not asked for one.
    pub client_ca: Option<PathBuf>,
}

/// `[auth.mtls]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MtlsConfig {
    /// Which name of a client certificate is the subject.
    pub subject: Subject,
}

impl TlsConfig {
    /// The same, with its paths below a folder where they are relative.
    pub(super) fn below(self, folder: &Path) -> Self {
        Self {
            cert: folder.join(self.cert),
            key: folder.join(self.key),
            client_ca: self.client_ca.map(|client_ca| folder.join(client_ca)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    const DATABASE: &str = "[database]\nurl = \"postgres://h/d\"\n";
    const TOKENS: &str = "[auth.tokens]\nfile = \"t.toml\"\n";
    const MTLS: &str = "[auth.mtls]\nsubject = \"uri\"\n";
    const TLS: &str = "[server.tls]\ncert = \"c.pem\"\nkey = \"k.pem\"\n";
    const CLIENTS: &str = "client_ca = \"a.pem\"\n";

    fn read(parts: &[&str]) -> Result<Config, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.toml");
        std::fs::write(&file, parts.concat()).expect("written");
        Config::read(&file, Vec::new())
    }

    #[test]
    fn the_files_are_named_together_and_are_relative_to_the_configuration() {
        let config = read(&[DATABASE, TOKENS, TLS, CLIENTS]).expect("well-formed");
        let tls = config.server.tls.expect("it");
        let client_ca = tls.client_ca.expect("it");
        assert!([tls.cert, tls.key, client_ca].iter().all(|path| path.is_absolute()));
        for alone in ["[server.tls]\ncert = \"c.pem\"\n", "[server.tls]\nkey = \"k.pem\"\n"] {
            assert!(read(&[DATABASE, TOKENS, alone]).is_err(), "{alone}");
        }
    }

    #[test]
    fn with_tls_any_address_will_do() {
        let open = "[server]\nlisten = \"0.0.0.0:50051\"\n";
        assert!(read(&[DATABASE, TOKENS, open]).is_err());
        assert!(read(&[DATABASE, TOKENS, open, TLS]).is_ok());
    }

    #[test]
    fn there_is_an_authenticator_and_what_it_needs() {
        assert!(read(&[DATABASE, MTLS, TLS, CLIENTS]).is_ok(), "tokens are not needed");
        for (parts, key) in [
            (&[DATABASE, "[auth]\n"][..], "auth.tokens"),
            (&[DATABASE, MTLS], "client_ca"),
            (&[DATABASE, TOKENS, MTLS, TLS], "client_ca"),
            (&[DATABASE, "[auth.mtls]\n", TLS, CLIENTS], "subject"),
            (&[DATABASE, "[auth.mtls]\nsubject = \"cn\"\n", TLS, CLIENTS], "dns"),
        ] {
            let fault = read(parts).expect_err("a fault");
            assert!(fault.contains(key), "{fault}");
        }
    }
}
