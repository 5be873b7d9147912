//! Wake-ups from another server that do not come: the poll brings what they would have.

use std::time::{Duration, Instant};

use approval_authority::proto::{Start, WatchApprovalsResponse};
use tonic::Streaming;

use super::{
    check::{self, Asked, check_log, check_stream},
    read_up_to,
};
use crate::{
    database::Database,
    proxy::Proxy,
    server::Process,
    watch::{from, next},
};

/// Events written one by one, each when the one before has arrived.
const EVENTS: i64 = 5;

/// Much longer than the poll takes on any machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sessions that listen for wake-ups.
const LISTENING: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND (query LIKE 'LISTEN%' OR query LIKE '-- ping()%')";

/// A server whose wake-ups come by way of a proxy, and one that writes.
struct Scene {
    database: Database,
    proxy: Proxy,
    watched: Process,
    written: Process,
    stream: Streaming<WatchApprovalsResponse>,
    history: Vec<WatchApprovalsResponse>,
}

impl Scene {
    async fn new(prepare: impl FnOnce(&Proxy)) -> Self {
        let database = Database::new().await;
        let proxy = Proxy::new(&database.url).await;
        prepare(&proxy);
        let settings = [("DATABASE__NOTIFY_URL", proxy.url.as_str())];
        let (watched, written) = tokio::join!(
            Process::with_settings(&database.url, &settings),
            Process::serve(&database.url)
        );
        let viewer = watched.caller("viewer").await;
        let mut stream = viewer.watch(from(Start::Oldest)).await.expect("a stream");
        let history = vec![next(&mut stream).await];
        Self { database, proxy, watched, written, stream, history }
    }

    async fn until_listening(&self, sessions: i64) {
        let until = Instant::now() + PATIENCE;
        while self.database.count(LISTENING).await != sessions {
            assert!(Instant::now() < until, "{sessions} sessions should listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Writes on the one server and waits for it on the other.
    async fn write_and_watch(&mut self, fault: &str) {
        let backend = self.written.caller("backend").await;
        let reached = super::check::entries(&self.history).len();
        let first = i64::try_from(reached).expect("fits") + 1;
        let mut delays = Vec::new();
        for revision in first..first + EVENTS {
            backend.require(&format!("w{revision}"), "secret_write").await;
            let written = Instant::now();
            let arrives = read_up_to(&mut self.stream, revision, &mut self.history);
            let arrived = tokio::time::timeout(PATIENCE, arrives).await;
            arrived.expect("the poll finds it").expect("the stream goes on");
            delays.push(written.elapsed());
        }
        println!("{fault}: from the answer to the subscriber {delays:?}");
        assert_eq!(check_stream(&self.history, Asked::All), []);
        assert_eq!(check_log(&self.history, &check::log(&self.database.url).await), []);
    }
}

/// A connection that looked healthy until somebody used it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_arrive_when_the_listening_connection_is_swallowed() {
    let mut scene = Scene::new(|_| {}).await;
    scene.until_listening(2).await;
    scene.write_and_watch("wake-ups arrive").await;
    scene.proxy.swallow();
    scene.write_and_watch("everything is swallowed").await;
}

/// A connection that answers and never hears of anything, as through a pooler in transaction mode.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_arrive_when_the_session_does_not_listen() {
    let mut scene = Scene::new(Proxy::unlisten).await;
    // The session of the other server; this one's says UNLISTEN.
    scene.until_listening(1).await;
    scene.write_and_watch("UNLISTEN behind its back").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listening_connection_that_is_terminated_is_made_again() {
    let mut scene = Scene::new(|_| {}).await;
    scene.until_listening(2).await;
    let terminate = LISTENING.replace("count(*)", "count(pg_terminate_backend(pid))");
    assert_eq!(scene.database.count(&terminate).await, 2);
    scene.write_and_watch("terminated").await;
    scene.until_listening(2).await;
    assert!(scene.watched.child.id().is_some());
    scene.write_and_watch("listening again").await;
}
