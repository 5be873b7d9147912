//! The database: the only code that speaks SQL. The submodules hold the statements, a table or an aspect
//! each; the pool is here.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use deadpool::{
    Runtime,
    managed::{self, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult},
};
use deadpool_postgres::ClientWrapper;
use futures_util::future::poll_fn;
use tokio_postgres::{AsyncMessage, NoTls, config::TargetSessionAttrs, error::Severity};

use crate::error::Error;

pub mod approvals;
pub mod batch;
pub mod events;
mod failure;
pub mod listing;
pub mod log;
pub mod notify;
pub mod requests;
mod rows;
pub mod schema;
pub mod transaction;
pub mod workspaces;

pub use failure::Failure;

/// How long a call waits for a connection, and a connection for a server that does not answer.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// How long a statement may take before this end stops waiting: a little longer than the server's own
/// timeout (`transaction::BEGIN`), for a server that has stopped answering.
pub const STATEMENT_PATIENCE: Duration = Duration::from_secs(6);

/// Where the database is.
#[derive(Clone)]
pub struct StoreConfig {
    /// A `postgres://` URL or a `key=value` list; several hosts and `target_session_attrs` are understood.
    pub url: String,
    /// Where LISTEN goes, if `url` leads to a pooler.
    pub notify_url: Option<String>,
    /// Connections held at most.
    pub pool_size: usize,
}

impl std::fmt::Debug for StoreConfig {
    /// Leaves the URLs out: they can hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreConfig").field("pool_size", &self.pool_size).finish_non_exhaustive()
    }
}

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: Pool<Connector>,
    connector: Connector,
    notify_url: Option<tokio_postgres::Config>,
    announcer: notify::Announcer,
}

impl Store {
    /// A pool for the database; connects when first asked for a connection.
    pub fn new(config: &StoreConfig) -> Result<Self, Error> {
        let connector = Connector { config: parse_url("database.url", &config.url)? };
        let notify_url = match &config.notify_url {
            None => None,
            Some(url) => Some(parse_url("database.notify_url", url)?),
        };
        let pool = Pool::builder(connector.clone())
            .max_size(config.pool_size)
            .wait_timeout(Some(CONNECT_PATIENCE))
            .create_timeout(Some(CONNECT_PATIENCE))
            .recycle_timeout(Some(CONNECT_PATIENCE))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(Error::internal)?;
        Ok(Self { pool, connector, notify_url, announcer: notify::Announcer::default() })
    }

    /// A connection of the pool's.
    async fn connection(&self) -> Result<Lease, Failure> {
        match self.pool.get().await {
            Ok(connection) => Ok(Lease { connection: Some(connection), clean: false }),
            Err(PoolError::Backend(failure)) => Err(failure),
            Err(error) => Err(Failure::Unavailable(error.to_string())),
        }
    }

    /// Where revisions that were committed here are announced.
    pub fn announcer(&self) -> &notify::Announcer {
        &self.announcer
    }
}

fn parse_url(key: &str, url: &str) -> Result<tokio_postgres::Config, Error> {
    // The parser's error does not repeat the URL, which may hold a password.
    let mut config: tokio_postgres::Config =
        url.parse().map_err(|e| Error::invalid(key, format!("is no database URL: {e}")))?;
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_PATIENCE);
    }
    if config.get_hosts().len() > 1 && config.get_target_session_attrs() == TargetSessionAttrs::Any
    {
        // Nothing is ever read from a standby, so of several hosts only the primary will do.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    if config.get_application_name().is_none() {
        config.application_name("approval-authority");
    }
    Ok(config)
}

/// A connection on loan. It goes back to the pool only when its user says that it is clean: after an error
/// or a timeout its state is not known, and closing it is the surest rollback.
pub(crate) struct Lease {
    connection: Option<Object<Connector>>,
    clean: bool,
}

impl Lease {
    /// Says that the work on the connection is complete.
    fn give_back(mut self) {
        self.clean = true;
    }
}

impl Deref for Lease {
    type Target = Connection;

    #[allow(clippy::expect_used)]
    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("taken in drop alone")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let (Some(connection), false) = (self.connection.take(), self.clean) {
            drop(Object::take(connection));
        }
    }
}

/// A session with the database, and how many warnings the server has sent on it.
pub struct Connection {
    client: ClientWrapper,
    warnings: Arc<AtomicU64>,
}

impl Connection {
    /// Warnings received so far. A notice that the server sends before an answer is counted before the answer
    /// is handed over, since one task reads both from one socket, in order.
    fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::Acquire)
    }
}

impl Deref for Connection {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        &self.client
    }
}

/// Makes the pool's connections. deadpool-postgres drives its own as plain futures, which throws notices
/// away, and a notice is the only trace of a COMMIT that the standby did not confirm.
#[derive(Clone)]
struct Connector {
    config: tokio_postgres::Config,
}

impl managed::Manager for Connector {
    type Type = Connection;
    type Error = Failure;

    async fn create(&self) -> Result<Connection, Failure> {
        let (client, mut driver) = self.config.connect(NoTls).await.map_err(Failure::connecting)?;
        let warnings = Arc::new(AtomicU64::new(0));
        let counter = warnings.clone();
        let task = tokio::spawn(async move {
            while let Some(message) = poll_fn(|cx| driver.poll_message(cx)).await {
                match message {
                    Ok(AsyncMessage::Notice(notice)) => {
                        if is_warning(notice.parsed_severity()) {
                            counter.fetch_add(1, Ordering::AcqRel);
                            tracing::warn!(
                                code = notice.code().code(),
                                message = notice.message(),
                                "database warning"
                            );
                        }
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%error, "database connection lost");
                        return;
                    }
                }
            }
        });
        let connection = Connection { client: ClientWrapper::new(client, task), warnings };
        schema::check_server(&connection).await?;
        Ok(connection)
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<Failure> {
        if connection.client.is_closed() {
            return Err(RecycleError::message("closed"));
        }
        Ok(())
    }
}

/// What is not known to be harmless counts as a warning.
fn is_warning(severity: Option<Severity>) -> bool {
    match severity {
        Some(Severity::Debug | Severity::Log | Severity::Info | Severity::Notice) => false,
        Some(Severity::Warning | Severity::Error | Severity::Fatal | Severity::Panic) | None => {
            true
        }
    }
}

/// Waits for a statement no longer than `STATEMENT_PATIENCE`.
pub async fn patiently<T, E: Into<Failure>>(
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(STATEMENT_PATIENCE, work).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(Failure::Unavailable("the database did not answer in time".to_owned())),
    }
}
