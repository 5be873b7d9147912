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
    auth::{
        Access,
        jwks::{Fetched, KeySet, Keys, Pace},
        jwt::Issuer,
        mtls,
        tokens::Tokens,
    },
    config::{Config, JwksSource, JwtConfig},
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

/// Who callers are and what they may do, by the files that a deployment names. A SIGHUP has all read again: if
/// all are good they take the place of what was in force, together; otherwise nothing changes. Keys of issuers that are
/// fetched come and go by themselves.
pub(super) fn access(config: &Config) -> Result<watch::Receiver<Arc<Access>>> {
    // Before the files are read, so that no word of a change to them is missed.
    let mut hangups = signal(SignalKind::hangup())?;
    let files = Files::of(config)?;
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
    /// None where there are no tokens.
    tokens: Option<PathBuf>,
    mtls: Option<mtls::Subject>,
    issuers: Vec<Named>,
}

/// An issuer of the configuration.
#[derive(Clone)]
struct Named {
    name: String,
    config: JwtConfig,
    keys: Source,
}

#[derive(Clone)]
enum Source {
    File(PathBuf),
    Url(Fetched),
}

impl Named {
    fn read(&self) -> Result<Issuer, Faulty> {
        let keys = match &self.keys {
            Source::File(file) => Keys::Read(Arc::new(key_set(file)?)),
            Source::Url(fetched) => Keys::Fetched(fetched.clone()),
        };
        let JwtConfig { issuer, audience, groups_claim, .. } = self.config.clone();
        Ok(Issuer { name: self.name.clone(), issuer, audience, groups_claim, keys })
    }
}

fn key_set(file: &Path) -> Result<KeySet, Faulty> {
    let faulty = |why: String| Faulty(vec![format!("{}: {why}", file.display())]);
    let json = std::fs::read(file).map_err(|error| faulty(format!("cannot be read: {error}")))?;
    let keys = KeySet::parse(&json).map_err(faulty)?;
    if keys.is_empty() {
        return Err(faulty("holds no key that can be used".to_owned()));
    }
    Ok(keys)
}

impl Files {
    /// Begins to fetch the keys of those issuers that have them fetched.
    fn of(config: &Config) -> Result<Self> {
        let issuers = config.auth.jwt.iter().map(|(name, config)| {
            let keys = match &config.jwks {
                JwksSource::File(file) => Source::File(file.clone()),
                JwksSource::Url(url) => {
                    Source::Url(Fetched::start(name, url.clone(), Pace::default())?)
                }
            };
            Ok(Named { name: name.clone(), config: config.clone(), keys })
        });
        Ok(Self {
            policy: config.policy.file.clone(),
            tokens: config.auth.tokens.as_ref().map(|tokens| tokens.file.clone()),
            mtls: config.auth.mtls.as_ref().map(|mtls| mtls.subject),
            issuers: issuers.collect::<Result<_>>()?,
        })
    }

    fn read(&self) -> Result<Access, Faulty> {
        let policy = match &self.policy {
            Some(path) => read(path, file::parse),
            None => file::parse(BUILT_IN).map_err(|faults| {
                Faulty(faults.iter().map(|fault| format!("the built-in policy: {fault}")).collect())
            }),
        };
        let mut faults = Vec::new();
        let policy = kept(policy, &mut faults);
        let tokens = self.tokens.as_ref().map_or_else(
            || Some(Tokens::default()),
            |file| kept(read(file, Tokens::parse), &mut faults),
        );
        let issuers = self.issuers.iter().filter_map(|one| kept(one.read(), &mut faults)).collect();
        match (policy, tokens) {
            (Some(policy), Some(tokens)) if faults.is_empty() => {
                Ok(Access { tokens, mtls: self.mtls, issuers, policy: Arc::new(policy) })
            }
            _ => Err(Faulty(faults)),
        }
    }
}

/// What was read, or its faults with the others.
fn kept<T>(read: Result<T, Faulty>, faults: &mut Vec<String>) -> Option<T> {
    match read {
        Ok(read) => Some(read),
        Err(Faulty(found)) => {
            faults.extend(found);
            None
        }
    }
}
