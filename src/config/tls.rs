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
