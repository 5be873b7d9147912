//! Connections: how they are made, lent out, and given up.

use std::{
    fs,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use deadpool::managed::{Manager, Metrics, Object, RecycleError, RecycleResult};
use deadpool_postgres::ClientWrapper;
use futures_util::{
    FutureExt,
    stream::{BoxStream, StreamExt, poll_fn},
};
use tokio::sync::OwnedSemaphorePermit;
use tokio_postgres::{
    AsyncMessage, Client, Config, NoTls, Row, Socket,
    config::{SslMode, TargetSessionAttrs},
    error::Severity,
    tls::TlsStream,
    types::ToSql,
};
use tokio_postgres_rustls_improved::MakeRustlsConnect;

use super::{Failure, schema, url::Url};
use crate::{error::Error, metrics::Opened, tls};

/// How long one host may take from the first packet to its first answer.
pub(super) const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// PostgreSQL's own, where a URL names none.
const PORT: u16 = 5432;

/// How long a statement may take before this end stops waiting: a little longer than the server's own
/// timeout (`SETTINGS`, `transaction::BEGIN`), for a server that has stopped answering.
const STATEMENT_PATIENCE: Duration = Duration::from_secs(6);

/// The same for statements that are sent together, two of which wait for locks: each of them has the server's timeout, of
/// 5 s for the first and 3 s for one lock.
const FLIGHT_PATIENCE: Duration = Duration::from_secs(9);

/// A session with the database, and how many warnings the server has sent on it.
pub struct Connection {
    client: ClientWrapper,
    warnings: Arc<AtomicU64>,
    generation: u64,
    newest: Arc<AtomicU64>,
}

impl Connection {
    /// Warnings received so far. A notice that the server sends before an answer is counted before the answer
    /// is handed over, since one task reads both from one socket, in order.
    pub(super) fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::Acquire)
    }

    /// The server does not answer on this one, and so neither on those that are as old: a machine that is gone
    /// says so on none.
    fn suspect_all_of_its_age(&self) {
        self.newest.fetch_max(self.generation + 1, Ordering::AcqRel);
    }
}

impl Deref for Connection {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        &self.client
    }
}

/// A connection on loan. After an error or a timeout, and in the middle of a transaction, its state is not
/// known: then it is closed, the surest rollback, and else it goes back to the pool. A statement whose caller
/// has gone away does no harm: the next one waits for its answer.
pub struct Lease {
    connection: Option<Object<Connector>>,
    spoilt: AtomicBool,
    _place: Option<OwnedSemaphorePermit>,
}

impl Lease {
    pub(super) fn new(connection: Object<Connector>, place: Option<OwnedSemaphorePermit>) -> Self {
        let spoilt = AtomicBool::new(false);
        Self { connection: Some(connection), spoilt, _place: place }
    }

    /// Says whether the connection has to be closed if the loan ends now.
    pub(super) fn set_spoilt(&self, spoilt: bool) {
        self.spoilt.store(spoilt, Ordering::Release);
    }

    /// The rows of a statement, which is planned once for each connection.
    pub(super) async fn rows(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Failure> {
        self.patiently(async {
            let statement = self.prepare_cached(statement).await?;
            self.query(&statement, parameters).await
        })
        .await
    }

    /// Waits for one statement on this connection, no longer than `STATEMENT_PATIENCE`.
    pub(super) fn patiently<T, E: Into<Failure>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> impl Future<Output = Result<T, Failure>> {
        self.within(STATEMENT_PATIENCE, work)
    }

    /// Waits for statements that were sent together, no longer than `FLIGHT_PATIENCE`.
    pub(super) fn in_one_flight<T, E: Into<Failure>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> impl Future<Output = Result<T, Failure>> {
        self.within(FLIGHT_PATIENCE, work)
    }

    /// Not an `async fn`: it would keep a second place for the work, as would each around it.
    fn within<T, E: Into<Failure>>(
        &self,
        patience: Duration,
        work: impl Future<Output = Result<T, E>>,
    ) -> impl Future<Output = Result<T, Failure>> {
        tokio::time::timeout(patience, work).map(|done| match done {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                self.set_spoilt(true);
                Err(error.into())
            }
            Err(_) => Err(self.give_up()),
        })
    }

    /// The server has not answered in time.
    pub(super) fn give_up(&self) -> Failure {
        self.set_spoilt(true);
        self.suspect_all_of_its_age();
        silent()
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
        if self.spoilt.load(Ordering::Acquire) {
            drop(self.connection.take().map(Object::take));
        }
    }
}

/// A client, and what the server says beside its answers, which has to be read for the client to get anywhere.
pub(super) type Driven = (Client, BoxStream<'static, Result<AsyncMessage, tokio_postgres::Error>>);

/// One host of a database.
#[derive(Clone)]
struct Endpoint {
    /// As the URL has it, with its port.
    name: Arc<str>,
    config: Config,
    /// None for plaintext.
    tls: Option<MakeRustlsConnect>,
}

impl Endpoint {
    async fn connect(&self) -> Result<Driven, Failure> {
        match &self.tls {
            // Boxed: their types are nested so deeply that the compiler would not follow them.
            None => self.config.connect(NoTls).boxed().await.map(driven),
            Some(tls) => self.config.connect(tls.clone()).boxed().await.map(driven),
        }
        .map_err(Failure::connecting)
    }
}

fn driven<S>(session: (Client, tokio_postgres::Connection<Socket, S>)) -> Driven
where
    S: TlsStream + Unpin + Send + 'static,
{
    let (client, mut driver) = session;
    (client, poll_fn(move |cx| driver.poll_message(cx)).boxed())
}

/// Statements are planned once for a connection, for whatever they are given: a plan for one namespace does not do for
/// another (`migrations/V6__planning.sql`), and to plan one anew for each call takes as long as to carry it out. Such a plan
/// is taken to read far more than it does, which would have PostgreSQL compile it (jit) for longer than it runs.
///
/// A statement outside a transaction ends there when it is given up here: the server of a connection that was closed goes on
/// waiting for a lock, and there would be one more with each try. Transactions say so themselves (`transaction::BEGIN`).
const SETTINGS: &str =
    "SET plan_cache_mode = force_generic_plan; SET jit = off; SET statement_timeout = '5s'";

/// Makes the pool's connections. deadpool-postgres drives its own as plain futures, which throws notices
/// away, and a notice is the only trace of a COMMIT that the standby did not confirm.
#[derive(Clone)]
pub(super) struct Connector {
    /// The same database on each of its hosts, in the order given.
    hosts: Arc<[Endpoint]>,
    /// The one that answered last, which is tried first: a machine that is gone takes long to be given up.
    answered: Arc<AtomicUsize>,
    newest: Arc<AtomicU64>,
    pub(super) opened: Opened,
}

impl Connector {
    /// For the database that the configuration's `key` names.
    pub(super) fn new(key: &str, url: &Url) -> Result<Self, Error> {
        let hosts = each_host(url).map_err(|why| Error::invalid(key, why))?;
        let (answered, newest) = (Arc::default(), Arc::default());
        Ok(Self { hosts: hosts.into(), answered, newest, opened: Opened::default() })
    }

    /// Longer than all hosts together may take.
    pub(super) fn patience(&self) -> Duration {
        CONNECT_PATIENCE * u32::try_from(self.hosts.len()).unwrap_or(u32::MAX) + CONNECT_PATIENCE
    }

    /// A session that the caller drives, without the checks of the pool's: for migrations and for LISTEN.
    pub(super) async fn connect_unchecked(&self) -> Result<Driven, Failure> {
        self.first_that_answers(|mut host| async move {
            host.config.target_session_attrs(TargetSessionAttrs::ReadWrite);
            host.connect().await
        })
        .await
    }

    /// What the first host comes to that does not fail. Each has its own time: one that accepts a connection and
    /// says nothing must not keep us from the others.
    async fn first_that_answers<T, F>(&self, attempt: impl Fn(Endpoint) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut failed: Option<Failure> = None;
        let first = self.answered.load(Ordering::Relaxed);
        let hosts = self.hosts.iter().enumerate();
        for (place, host) in hosts.cycle().skip(first).take(self.hosts.len()) {
            let attempted = tokio::time::timeout(CONNECT_PATIENCE, attempt(host.clone())).await;
            let failure = match attempted.unwrap_or_else(|_| Err(silent())) {
                Ok(session) => {
                    self.answered.store(place, Ordering::Relaxed);
                    return Ok(session);
                }
                Err(failure) => failure.of_host(&host.name, failed.as_ref()),
            };
            failed = Some(failure);
        }
        Err(failed.unwrap_or_else(|| Failure::Unavailable("the URL names no host".to_owned())))
    }

    /// A session for the pool, with a primary that keeps what it acknowledges.
    async fn connect_to(&self, host: Endpoint) -> Result<Connection, Failure> {
        let generation = self.newest.load(Ordering::Acquire);
        let (client, mut messages) = host.connect().await?;
        let warnings = Arc::new(AtomicU64::new(0));
        let counter = warnings.clone();
        let task = tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                match message {
                    Ok(AsyncMessage::Notice(notice)) => {
                        if is_warning(notice.parsed_severity()) {
                            counter.fetch_add(1, Ordering::AcqRel);
                            let code = notice.code().code();
                            tracing::warn!(code, message = notice.message(), "database warning");
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
        let client = ClientWrapper::new(client, task);
        let connection = Connection { client, warnings, generation, newest: self.newest.clone() };
        schema::check_server(&connection).await?;
        connection.batch_execute(SETTINGS).await?;
        Ok(connection)
    }
}

impl Manager for Connector {
    type Type = Connection;
    type Error = Failure;

    async fn create(&self) -> Result<Connection, Failure> {
        // Boxed: it is rare, and large, and within each future that may have to wait for a connection.
        let connected = self.first_that_answers(|host| self.connect_to(host)).boxed().await;
        match &connected {
            Ok(_) => self.opened.made.inc(),
            Err(_) => self.opened.failed.inc(),
        }
        connected
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<Failure> {
        if connection.client.is_closed() {
            return Err(RecycleError::message("closed"));
        }
        if connection.generation < self.newest.load(Ordering::Acquire) {
            return Err(RecycleError::message("as old as one that was not answered"));
        }
        Ok(())
    }
}

/// One endpoint for each host of a URL that names several.
fn each_host(url: &Url) -> Result<Vec<Endpoint>, String> {
    let config = &url.config;
    let (ports, addresses) = (config.get_ports(), config.get_hostaddrs());
    let hosts = config.get_hosts().iter().enumerate();
    let is_verified = |(index, host)| url.is_verified(host, addresses.get(index));
    let tls = if hosts.clone().any(is_verified) { Some(tls_of(url)?) } else { None };
    let endpoints = hosts.map(|(index, host)| {
        let mut one = Config::new();
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(PORT);
        let name = match host {
            tokio_postgres::config::Host::Tcp(name) => {
                one.host(name);
                format!("{name}:{port}")
            }
            tokio_postgres::config::Host::Unix(path) => {
                one.host_path(path);
                format!("{}:{port}", path.display())
            }
        };
        one.port(port);
        if let Some(address) = addresses.get(index) {
            one.hostaddr(*address);
        }
        let tls = tls.clone().filter(|_| is_verified((index, host)));
        one.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        config.get_user().map(|user| one.user(user));
        config.get_password().map(|password| one.password(password));
        config.get_dbname().map(|name| one.dbname(name));
        config.get_options().map(|options| one.options(options));
        one.application_name(config.get_application_name().unwrap_or("approval-authority"));
        one.ssl_negotiation(config.get_ssl_negotiation());
        one.target_session_attrs(config.get_target_session_attrs());
        one.channel_binding(config.get_channel_binding());
        one.keepalives(config.get_keepalives());
        one.keepalives_idle(config.get_keepalives_idle());
        config.get_keepalives_interval().map(|interval| one.keepalives_interval(interval));
        config.get_keepalives_retries().map(|retries| one.keepalives_retries(retries));
        one.connect_timeout(CONNECT_PATIENCE);
        // What was sent and is not acknowledged by then was sent to a machine that is gone.
        let unacknowledged = config.get_tcp_user_timeout().copied();
        one.tcp_user_timeout(unacknowledged.unwrap_or(STATEMENT_PATIENCE));
        Endpoint { name: name.into(), config: one, tls }
    });
    Ok(endpoints.collect())
}

fn tls_of(url: &Url) -> Result<MakeRustlsConnect, String> {
    let roots = match &url.authorities {
        None => tls::system_roots()
            .map_err(|why| format!("wants TLS, and names no sslrootcert: {why}"))?,
        Some(path) => {
            let pem = fs::read(path).map_err(|error| {
                format!("sslrootcert {} cannot be read: {error}", path.display())
            })?;
            tls::roots(&pem).map_err(|why| format!("sslrootcert {} {why}", path.display()))?
        }
    };
    Ok(MakeRustlsConnect::new(tls::database_client(roots)?))
}

fn silent() -> Failure {
    Failure::Unavailable("the database did not answer in time".to_owned())
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
