//! The files that say who callers are and what they may do: read at the start, and again at each SIGHUP.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Result;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::spawn_blocking,
};

use crate::{
    auth::{Access, mtls, tokens::Tokens},
    config::Config,
    document::Fault,
    policy::file::{self, BUILT_IN},
};

/// Everything that is wrong with files, a line for each fault: `FILE: line N: message`.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub(super) struct Faulty(Vec<String>);

/// Reads a file, or says everything that is wrong with it.
pub(super) fn read<T>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, Vec<Fault>>,
) -> Result<T, Faulty> {
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Faulty(vec![format!("{name}: cannot be read: {error}")]))?;
    parse(&text)
        .map_err(|faults| Faulty(faults.iter().map(|fault| format!("{name}: {fault}")).collect()))
}

/// Who callers are and what they may do, by the files that a deployment names. A SIGHUP has both read again: if
/// both are good they take the place of what was in force, together; otherwise nothing changes.
pub(super) fn access(config: &Config) -> Result<watch::Receiver<Arc<Access>>> {
    // Before the files are read, so that no word of a change to them is missed.
    let mut hangups = signal(SignalKind::hangup())?;
    let files = Files {
        policy: config.policy.file.clone(),
        tokens: config.auth.tokens.as_ref().map(|tokens| tokens.file.clone()),
        mtls: config.auth.mtls.as_ref().map(|mtls| mtls.subject),
    };
    let (in_force, access) = watch::channel(Arc::new(files.read()?));
    tokio::spawn(async move {
        // A signal that comes while the files are being read is kept for the next turn.
        while hangups.recv().await.is_some() {
            let files = files.clone();
            match spawn_blocking(move || files.read()).await {
                Ok(Ok(access)) => replace(&in_force, access),
                Ok(Err(Faulty(faults))) => {
                    for fault in faults {
                        tracing::error!("{fault}");
                    }
                    tracing::error!("policy and tokens stay as they were");
                }
                Err(error) => tracing::error!(%error, "policy and tokens stay as they were"),
            }
        }
    });
    Ok(access)
}

fn replace(in_force: &watch::Sender<Arc<Access>>, access: Access) {
    let policy = access.policy.clone();
    in_force.send_replace(Arc::new(access));
    tracing::info!(policy_digest = policy.digest(), "policy and tokens are read again");
}

#[derive(Clone)]
struct Files {
    /// None for the built-in policy.
    policy: Option<PathBuf>,
    /// None where nobody shows one.
    tokens: Option<PathBuf>,
    mtls: Option<mtls::Subject>,
}

impl Files {
    fn read(&self) -> Result<Access, Faulty> {
        let policy = match &self.policy {
            Some(path) => read(path, file::parse),
            None => file::parse(BUILT_IN).map_err(|faults| {
                Faulty(faults.iter().map(|fault| format!("the built-in policy: {fault}")).collect())
            }),
        };
        let tokens = match &self.tokens {
            Some(path) => read(path, Tokens::parse),
            None => Ok(Tokens::default()),
        };
        match (policy, tokens) {
            (Ok(policy), Ok(tokens)) => {
                Ok(Access { tokens, mtls: self.mtls, policy: Arc::new(policy) })
            }
            (Ok(_), Err(faulty)) | (Err(faulty), Ok(_)) => Err(faulty),
            (Err(Faulty(policy)), Err(Faulty(tokens))) => Err(Faulty([policy, tokens].concat())),
        }
    }
}
