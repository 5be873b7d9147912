//! `serve`: the service, from its configuration to its drain.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::task::AbortOnDropHandle;

use super::{certificates, files, logs, notify, traces::Export};
use crate::{
    admin::Admin,
    config::{Config, LimitsConfig, RetentionConfig},
    grpc::{limits::Limits, server::Server},
    keeper::Retention,
    store::{
        Failure, Store, StoreConfig,
        role::{ROLE, Rights},
        schema::SchemaStatus,
    },
};

/// Between two tries to reach the database at start.
const RETRY: Duration = Duration::from_secs(1);

/// Files beside the connections with callers and the database: logs, files that are read again, requests for keys.
const OTHER_FILES: usize = 32;

/// A subscriber that takes no message for this long is closed, and resumes with its cursor. Who takes no answer for this
/// long is closed with its connection.
const UNREAD: Duration = Duration::from_secs(60);

/// A connection on which nothing comes for this long is asked whether it still lives: a subscriber whose machine is gone would
/// otherwise keep its stream for ever.
const SILENT: Duration = Duration::from_secs(30);

pub(super) async fn run(config: PathBuf) -> Result<()> {
    let config = Config::load(&config).map_err(|why| anyhow!(why))?;
    logs::begin(config.log.format);
    let stop = stop_signal()?;
    tokio::pin!(stop);
    let admin = Admin::default();
    // Before the database was seen, and until the last call is answered.
    let _seen = watch_over(&config, admin.clone()).await?;
    let server = tokio::select! {
        server = prepare(&config, admin) => server?,
        () = &mut stop => return Ok(()),
    };
    let traces = config.telemetry.otlp_endpoint.as_deref().map(Export::begin).transpose()?;
    let grace = server.drain_grace;
    let listen = config.server.listen;
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    println!("listening on {}", listener.local_addr()?);
    notify::ready();
    let mut until = Instant::now();
    let stop = async {
        stop.await;
        notify::stopping();
        until = Instant::now() + grace;
    };
    server.run(listener, stop).await?;
    if let Some(traces) = traces {
        traces.end(until.saturating_duration_since(Instant::now())).await;
    }
    Ok(())
}

/// Listens for those who run the service, for as long as what it returns is kept.
async fn watch_over(config: &Config, admin: Admin) -> Result<Option<AbortOnDropHandle<()>>> {
    let Some(listen) = config.admin.listen else { return Ok(None) };
    let listener = TcpListener::bind(listen).await;
    let listener = listener.with_context(|| format!("cannot listen on admin.listen = {listen}"))?;
    tracing::info!("metrics, liveness and readiness on http://{}", listener.local_addr()?);
    Ok(Some(AbortOnDropHandle::new(tokio::spawn(admin.serve(listener)))))
}

/// Everything that a server stands on, checked; waits for a database that cannot be reached yet.
pub(super) async fn prepare(config: &Config, admin: Admin) -> Result<Server> {
    let access = files::access(config)?;
    let tls = match &config.server.tls {
        Some(files) => Some(certificates::watched(files.clone()).await?),
        None => None,
    };
    let store = store(config)?;
    // Whoever looks why it does not start sees how it stands with the database.
    admin.page.add(store.measures());
    while let Err(failure) = fit(&store, config.database.migrate_on_start).await? {
        tracing::warn!(%failure, "waiting for the database");
        tokio::time::sleep(RETRY).await;
    }
    let drain_grace = Duration::try_from(config.server.drain_grace)?;
    let reflection = config.server.reflection;
    let RetentionConfig { closed_approvals, events } = config.retention;
    let retention = Retention { closed_approvals, events };
    let limits = limits(config)?;
    Ok(Server { store, access, tls, limits, retention, reflection, admin, drain_grace })
}

fn limits(config: &Config) -> Result<Limits> {
    let LimitsConfig {
        connections,
        calls,
        calls_per_principal,
        waiters,
        waiters_per_principal,
        watchers,
        watchers_per_principal,
    } = config.limits;
    Ok(Limits {
        connections: affordable(connections, config.database.pool_size)?,
        calls,
        calls_per_principal,
        waiters,
        waiters_per_principal,
        watchers,
        watchers_per_principal,
        unread: UNREAD,
        silent: SILENT,
    })
}

/// As many connections as there are files for, which is what the operating system takes sockets for; it is asked for as many as
/// it gives. Not so many are allowed to most processes unless they ask.
fn affordable(connections: usize, database: usize) -> Result<usize> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("cannot open more files")?;
    let others = OTHER_FILES + database;
    let affordable = usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(others).max(1);
    if affordable < connections {
        tracing::warn!(
            "{affordable} connections are allowed rather than {connections}: this process may open {most} files"
        );
    }
    Ok(connections.min(affordable))
}

/// The store that the configuration names.
pub(super) fn store(config: &Config) -> Result<Store> {
    let database = &config.database;
    Ok(Store::new(&StoreConfig {
        url: database.url.clone(),
        notify_url: (!database.notify_url.is_empty()).then(|| database.notify_url.clone()),
        pool_size: database.pool_size,
        folder: database.folder.clone(),
    })?)
}

/// Resolves when the process is asked to stop, by Ctrl-C or SIGTERM.
pub(super) fn stop_signal() -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

type Fit = std::result::Result<(), Failure>;

/// Whether the schema fits this server; the inner error is a database that may be there later.
async fn fit(store: &Store, migrate: bool) -> Result<Fit> {
    let status = match store.schema_status().await {
        Ok(SchemaStatus::TooOld(needed)) if migrate => match store.migrate().await {
            Ok(applied) => {
                tracing::info!(?applied, "migrated");
                store.schema_status().await
            }
            Err(Failure::Denied(why)) => bail!(
                "the schema lacks migrations up to V{needed}, and the role of database.url may not apply them: {why}; \
                 run `approval-authority migrate` as the owner of the schema"
            ),
            Err(failure) => Err(failure),
        },
        status => status,
    };
    match status {
        Ok(SchemaStatus::Fits) => warn_of_rights(store).await,
        Ok(SchemaStatus::TooOld(needed)) => {
            bail!("the schema lacks migrations up to V{needed}: run `approval-authority migrate`")
        }
        Ok(SchemaStatus::NeedsNewerServer(version)) => {
            bail!("the schema needs a server of version {version} or newer")
        }
        Ok(SchemaStatus::NotGranted(name)) => {
            bail!("the database role {name} may not use the schema: run GRANT {ROLE} TO {name}")
        }
        Err(failure) => later(failure),
    }
}

/// A service that can do more than it needs works as well, and its password is worth more to a thief. Not refused: who
/// has one login for all, as migrate_on_start needs, has chosen so.
async fn warn_of_rights(store: &Store) -> Result<Fit> {
    match store.rights().await {
        Ok(Rights::TooMany { name, beyond }) => tracing::warn!(
            "the database role {name} may do what the service never does: {beyond}; \
             give the service a login that is a member of {ROLE} only"
        ),
        Ok(Rights::Fit | Rights::TooFew(_)) => {}
        Err(failure) => return later(failure),
    }
    Ok(Ok(()))
}

fn later(failure: Failure) -> Result<Fit> {
    match failure {
        Failure::Unavailable(_) => Ok(Err(failure)),
        failure => Err(failure.into()),
    }
}
