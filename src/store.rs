//! The database: the only code that speaks SQL. The submodules hold the statements, a table or an aspect
//! each; the pool is here.

use std::{path::PathBuf, sync::Arc};

use deadpool::{
    Runtime,
    managed::{Pool, PoolError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    error::Error,
    metrics::{Measures, Read},
};

pub mod approvals;
pub mod batch;
mod connection;
pub mod due;
pub mod events;
mod failure;
pub mod listing;
pub mod log;
pub mod notify;
mod pending;
pub mod requests;
pub mod retention;
pub mod role;
mod rows;
pub mod schema;
pub mod transaction;
mod url;
pub mod workspaces;

use connection::Connector;
pub use connection::{Connection, Lease};
pub use failure::Failure;
use url::Url;

/// Keeps the database's client from logging at "debug", where it prints the parameters of statements, and so what
/// approvals are about.
pub const QUIET: &str = "tokio_postgres=warn";

/// Connections for what is looked up by itself before something is decided; and as many for the tails of logs and the keeper
/// together.
const FOR_LOOKUPS: usize = 2;

/// Connections that lists and the feed leave to all else, where the pool is large enough: a crowd of readers, or of subscribers
/// that come back, must not keep the gate waiting, nor those who decide.
const NOT_FOR_READERS: usize = 2 * FOR_LOOKUPS;

/// Where the database is.
#[derive(Clone)]
pub struct StoreConfig {
    /// A `postgres://` URL or a `key=value` list. Of several hosts the first that answers and is a primary is
    /// used.
    pub url: String,
    /// Where LISTEN goes, if `url` leads to a pooler.
    pub notify_url: Option<String>,
    /// Connections held at most.
    pub pool_size: usize,
    /// Where the paths in the URLs begin that are relative.
    pub folder: PathBuf,
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
    listener: Connector,
    readers: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    apart: Arc<Semaphore>,
    announcer: notify::Announcer,
}

impl Store {
    /// A pool for the database; connects when first asked for a connection.
    pub fn new(config: &StoreConfig) -> Result<Self, Error> {
        let connector = |key, url| Connector::new(key, &Url::parse(key, url, &config.folder)?);
        let listener = match &config.notify_url {
            None => None,
            Some(url) => Some(connector("database.notify_url", url)?),
        };
        let connector = connector("database.url", &config.url)?;
        let listener = listener.unwrap_or_else(|| connector.clone());
        let pool = Pool::builder(connector.clone())
            .max_size(config.pool_size)
            .wait_timeout(Some(connection::CONNECT_PATIENCE))
            .create_timeout(Some(connector.patience()))
            .recycle_timeout(Some(connection::CONNECT_PATIENCE))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(Error::internal)?;
        let readers = config.pool_size.saturating_sub(NOT_FOR_READERS).max(1);
        let [readers, lookups, apart] =
            [readers, FOR_LOOKUPS, FOR_LOOKUPS].map(|places| Arc::new(Semaphore::new(places)));
        let announcer = notify::Announcer::default();
        Ok(Self { pool, connector, listener, readers, lookups, apart, announcer })
    }

    /// A connection of the pool's.
    async fn connection(&self) -> Result<Lease, Failure> {
        self.lend(None).await
    }

    /// The same database for what must not wait behind a crowd of readers: the tails of logs, and the keeper.
    pub fn apart(&self) -> Self {
        Self { readers: self.apart.clone(), ..self.clone() }
    }

    /// A connection for one thing that is looked up by its key, behind others of its kind alone.
    async fn lookup_connection(&self) -> Result<Lease, Failure> {
        self.lend_behind(&self.lookups).await
    }

    /// A connection for a list or the feed. Whoever waits here is in nobody's way, and waits its turn: to be refused
    /// it would only come back.
    async fn reading_connection(&self) -> Result<Lease, Failure> {
        self.lend_behind(&self.readers).await
    }

    async fn lend_behind(&self, places: &Arc<Semaphore>) -> Result<Lease, Failure> {
        let place = places.clone().acquire_owned().await;
        let place = place.map_err(|closed| Failure::Unavailable(closed.to_string()))?;
        self.lend(Some(place)).await
    }

    async fn lend(&self, place: Option<OwnedSemaphorePermit>) -> Result<Lease, Failure> {
        match self.pool.get().await {
            Ok(connection) => Ok(Lease::new(connection, place)),
            Err(PoolError::Backend(failure)) => Err(failure),
            Err(error) => Err(Failure::Unavailable(error.to_string())),
        }
    }

    /// How the pool is used.
    pub fn measures(&self) -> Measures {
        let pool = self.pool.clone();
        let names = [
            ("approval_authority_database_pool_limit", "Connections that the pool may hold"),
            ("approval_authority_database_pool_connections", "Connections that the pool holds"),
            ("approval_authority_database_pool_in_use", "Connections that are lent out"),
            (
                "approval_authority_database_pool_waiting",
                "Transactions and reads that wait for one",
            ),
        ];
        let read = move || {
            let status = pool.status();
            let in_use = status.size.saturating_sub(status.available);
            [status.max_size, status.size, in_use, status.waiting]
        };
        let mut measures = self.connector.opened.measures();
        measures.push(Box::new(Read::new(names, read)));
        measures
    }

    /// Where revisions that were committed here are announced.
    pub fn announcer(&self) -> &notify::Announcer {
        &self.announcer
    }
}
