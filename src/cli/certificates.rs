//! The server's certificate, its key, and the authorities of client certificates: read at the start, and again
//! when the files change. Who renews them by a timer has nobody there to send a signal.

use std::{io, path::Path, sync::Arc, time::Duration};

use anyhow::anyhow;
use tokio::{fs, sync::watch, time::sleep};

use crate::{config::TlsConfig, grpc::listener::Tls, tls};

/// Between two looks at the files.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the server shows, by the files that a deployment names. New files take the place of the old ones for
/// connections that come from then on, if all of them are good and belong together; otherwise nothing changes.
pub(super) async fn watched(files: TlsConfig) -> anyhow::Result<Tls> {
    let mut seen = Texts::read(&files).await;
    let first = seen.parse().map_err(|why| anyhow!("server.tls: {why}"))?;
    let (shown, tls) = watch::channel(Arc::new(first));
    tokio::spawn(async move {
        loop {
            sleep(INTERVAL).await;
            let texts = Texts::read(&files).await;
            if texts == seen {
                continue;
            }
            match texts.parse() {
                Ok(config) => {
                    shown.send_replace(Arc::new(config));
                    tracing::info!("certificates are read again");
                }
                Err(why) => tracing::error!("server.tls: {why}; certificates stay as they were"),
            }
            seen = texts;
        }
    });
    Ok(tls)
}

/// What the files hold, or why they cannot be read.
#[derive(PartialEq)]
struct Texts {
    cert: Result<Vec<u8>, String>,
    key: Result<Vec<u8>, String>,
    client_ca: Option<Result<Vec<u8>, String>>,
}

impl Texts {
    async fn read(files: &TlsConfig) -> Self {
        Self {
            cert: read(&files.cert).await,
            key: read(&files.key).await,
            client_ca: match &files.client_ca {
                Some(path) => Some(read(path).await),
                None => None,
            },
        }
    }

    fn parse(&self) -> Result<rustls::ServerConfig, String> {
        let client_ca = self.client_ca.as_ref().map(Result::as_ref).transpose();
        tls::server(self.cert.as_ref()?, self.key.as_ref()?, client_ca?.map(Vec::as_slice))
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, String> {
    let told = |error: io::Error| format!("{} cannot be read: {error}", path.display());
    fs::read(path).await.map_err(told)
}
