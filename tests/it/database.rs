//! The run's PostgreSQL cluster, and a database on it for each test.

use std::{
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use approval_authority::{
    config::program_folders,
    embedded::{Cluster, Installation, Keep},
    store::{Store, StoreConfig, role::ROLE},
};
use tokio_postgres::{Client, NoTls};

/// The migrated database that the tests' are copied from.
const TEMPLATE: &str = "migrated";

/// The login that the service has in tests.
const SERVICE: &str = "service";

/// Many servers and clients share the cluster.
const SETTINGS: &[&str] = &["max_connections=600", "shared_buffers=256MB", "max_wal_size=4GB"];

static CLUSTER: OnceLock<Cluster> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A database with the schema and nothing in it.
pub struct Database {
    /// For the service, which may do what it does and no more.
    pub url: String,
    /// For what tests do beside it.
    pub owner_url: String,
    pub name: String,
}

impl Database {
    pub async fn new() -> Self {
        Self::from(TEMPLATE).await
    }

    async fn from(template: &str) -> Self {
        let cluster = tokio::task::spawn_blocking(cluster).await.expect("a cluster");
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let client = connect(&cluster.url("postgres")).await;
        let create = format!("CREATE DATABASE {name} TEMPLATE {template}");
        client.batch_execute(&create).await.expect("a database");
        Self::of(cluster, &name)
    }

    /// One that is there, on a cluster of the test's own.
    pub fn of(cluster: &Cluster, name: &str) -> Self {
        let (url, owner_url) = (service_url(cluster, name), cluster.url(name));
        Self { url, owner_url, name: name.to_owned() }
    }

    /// Drops it, for tests that make many.
    pub async fn remove(self) {
        let client = connect(&cluster().url("postgres")).await;
        let remove = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        client.batch_execute(&remove).await.expect("dropped");
    }

    /// As it is now, under another name. Everybody is disconnected from it.
    pub async fn copy(&self) -> Self {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
        let admin = connect(&cluster().url("postgres")).await;
        admin.execute(end, &[&self.name]).await.expect("disconnected");
        Self::from(&self.name).await
    }

    /// A connection of the test's own, beside the service.
    pub async fn connect(&self) -> Client {
        connect(&self.owner_url).await
    }

    /// The first column of the first row.
    pub async fn count(&self, query: &str) -> i64 {
        let row = self.connect().await.query_one(query, &[]).await.expect("a count");
        row.get(0)
    }

    /// What its PostgreSQL logs.
    pub async fn server_log(&self) -> PathBuf {
        let row = self.connect().await.query_one("SHOW data_directory", &[]).await;
        let data = PathBuf::from(row.expect("a folder").get::<_, String>(0));
        data.parent().expect("the cluster's").join("postgres.log")
    }

    /// Moves the database's clock: all that the service knows of time. An interval of SQL, from the real time on.
    pub async fn move_clock(&self, interval: &str) {
        let clock = format!(
            "CREATE OR REPLACE FUNCTION approval_authority.clock() RETURNS timestamptz
                LANGUAGE sql VOLATILE PARALLEL SAFE
                AS $$ SELECT clock_timestamp() + interval '{interval}' $$"
        );
        self.connect().await.batch_execute(&clock).await.expect("another clock");
    }

    /// Returns once some session waits for a lock in this database.
    pub async fn until_a_lock_is_waited_for(&self) {
        let until = Instant::now() + Duration::from_secs(30);
        while self.waiting_for_locks().await == 0 {
            assert!(Instant::now() < until, "nobody waits for a lock");
            tokio::task::yield_now().await;
        }
    }

    /// How many statements wait for a lock.
    pub async fn waiting_for_locks(&self) -> i64 {
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        self.count(waiting).await
    }

    pub fn store(&self) -> Store {
        store(&self.url)
    }

    /// A store that may migrate.
    pub fn owners_store(&self) -> Store {
        store(&self.owner_url)
    }
}

/// Makes a database with the schema on a cluster of a test's own; returns how the service connects to it.
pub async fn deploy(cluster: &Cluster, name: &str) -> String {
    cluster.create_database(name).await.expect("a database");
    store(&cluster.url(name)).migrate().await.expect("migrated");
    cluster.add_login(SERVICE, ROLE).await.expect("the service's login");
    service_url(cluster, name)
}

/// How the service connects.
pub fn service_url(cluster: &Cluster, name: &str) -> String {
    cluster.url_as(SERVICE, name)
}

/// A connection that is driven in the background.
pub async fn connect(url: &str) -> Client {
    let (client, driver) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(driver);
    client
}

pub fn store(url: &str) -> Store {
    let config =
        StoreConfig { url: url.to_owned(), notify_url: None, pool_size: 8, folder: PathBuf::new() };
    Store::new(&config).expect("a store")
}

/// The PostgreSQL that the tests run on.
pub fn installation() -> Installation {
    let (pg_bin, path) = program_folders();
    Installation::find(pg_bin, &path).expect("a PostgreSQL")
}

/// A folder for a cluster, short enough for a socket's path, that nothing else uses. The cluster removes it.
pub fn cluster_folder() -> PathBuf {
    let folder = tempfile::Builder::new().prefix("aa-test-").tempdir().expect("a folder");
    folder.keep()
}

/// Started by the first test that needs it, on a thread that is not any test's. It is never dropped: it stops
/// and removes its folder when this process is gone.
fn cluster() -> &'static Cluster {
    CLUSTER.get_or_init(|| {
        let started = std::thread::spawn(|| {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let folder = cluster_folder();
                let cluster =
                    Cluster::start(&installation(), &folder, SETTINGS, Keep::Nothing).await;
                let cluster = cluster.expect("a cluster");
                deploy(&cluster, TEMPLATE).await;
                cluster
            })
        });
        started.join().expect("a cluster")
    })
}
