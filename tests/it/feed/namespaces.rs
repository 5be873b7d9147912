//! Many namespaces, of which some are in use, cost what one costs.

use std::time::Duration;

use approval_authority::proto::{RequireApprovalRequest, Start, WatchApprovalsRequest};
use futures_util::future::join_all;

use super::{
    check::{Asked, check_stream, entries},
    read_up_to,
};
use crate::{
    database::Database,
    harness::{id, request},
    server::Process,
    watch::{from, next},
};

const NAMESPACES: usize = 10_000;
const IN_USE: usize = 100;

/// A time in which the server polls twice or thrice.
const WHILE: Duration = Duration::from_millis(2_500);

/// Less than one for each namespace in use, and more than what the server does in that time in any case: polls, looks
/// at what is due, the test's own.
const TRANSACTIONS: i64 = 30;

const LISTENING: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND (query LIKE 'LISTEN%' OR query LIKE '-- ping()%')";

/// Transactions so far, of sessions that have told.
const TOLD: &str =
    "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_namespaces_in_use_of_ten_thousand_are_polled_at_once() {
    let database = Database::new().await;
    let fill = format!(
        "INSERT INTO approval_authority.logs (namespace, epoch)
            SELECT 'org-' || n, gen_random_uuid() FROM generate_series(1, {NAMESPACES}) AS n;
        INSERT INTO approval_authority.log_locks (namespace)
            SELECT l.namespace FROM approval_authority.logs AS l"
    );
    database.connect().await.batch_execute(&fill).await.expect("filled");
    let process = Process::serve(&database.url).await;
    let viewer = process.caller("viewer").await;
    let namespace = |number: usize| format!("org-{}", number * (NAMESPACES / IN_USE) + 1);
    let opened = (0..IN_USE).map(|number| {
        let watch =
            WatchApprovalsRequest { namespace: namespace(number), ..from(Start::Unspecified) };
        let viewer = viewer.clone();
        async move {
            let mut stream = viewer.watch(watch).await.expect("a stream");
            (vec![next(&mut stream).await], stream)
        }
    });
    let watchers = join_all(opened).await;

    assert_eq!(database.count(LISTENING).await, 1, "one session listens");
    // The quietest counts: sessions tell when they like, and of what they did before.
    let mut quietest = i64::MAX;
    for _ in 0..8 {
        let before = database.count(TOLD).await;
        tokio::time::sleep(WHILE).await;
        quietest = quietest.min(database.count(TOLD).await - before);
        if quietest < TRANSACTIONS {
            break;
        }
    }
    println!("{IN_USE} namespaces in use of {NAMESPACES}: {quietest} transactions in {WHILE:?}");
    assert!(quietest < TRANSACTIONS);
    assert_eq!(database.count(LISTENING).await, 1, "one session listens");

    let backend = process.caller("backend").await;
    for (number, (mut history, mut stream)) in watchers.into_iter().enumerate() {
        let ask = RequireApprovalRequest {
            namespace: namespace(number),
            ..request("w1", "secret_write")
        };
        let held = backend.ask(ask).await.expect("held");
        read_up_to(&mut stream, 1, &mut history).await.expect("it goes on");
        assert_eq!(check_stream(&history, Asked::All), []);
        assert_eq!(entries(&history)[0].approval, id(&held), "its own");
    }
}
