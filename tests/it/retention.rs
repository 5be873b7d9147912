//! What is old is deleted, and nobody is told that nothing has gone.

use approval_authority::{
    approval::{Decision, gate::Gate},
    error::Error,
    names::Namespace,
    proto::{Outcome, Start, WatchApprovalsRequest, WatchApprovalsResponse},
    store::{Store, events::Position},
};
use jiff::SignedDuration;
use tonic::Code;
use uuid::Uuid;

use crate::{
    database::Database,
    harness::{Caller, TestServer, id, refusal},
    server::{Process, RETENTION},
    service::{Service, call},
};

const AGE: SignedDuration = RETENTION.events;
const FLOOR: &str = "SELECT floor_revision FROM approval_authority.logs";
const EVENTS: &str = "SELECT count(*) FROM approval_authority.events";
const APPROVALS: &str = "SELECT count(*) FROM approval_authority.approvals";

fn namespace() -> Namespace {
    Namespace::default_namespace()
}

/// Cuts all that is to be cut; returns how many events.
async fn cut(store: &Store) -> u64 {
    let mut all = 0;
    loop {
        match store.cut_log(&namespace(), AGE).await.expect("cut") {
            0 => return all,
            some => all += some,
        }
    }
}

/// Deletes all that is to be deleted; returns how many approvals are left.
async fn clear(service: &Service) -> i64 {
    let mut after = Uuid::nil();
    let clear = async |after| service.store.clear_approvals(&namespace(), AGE, after).await;
    while let Some(last) = clear(after).await.expect("cleared") {
        assert!(last > after);
        after = last;
    }
    service.database.count(APPROVALS).await
}

/// An approval that is asked for, given and used: three events.
async fn through(service: &Service) {
    let id = service.pending().await;
    service.decide(id, Decision::Approve).await.expect("approved");
    let gate = service.ledger.require(call()).await.expect("an answer");
    assert!(matches!(gate, Gate::Approved { .. }));
}

#[tokio::test]
async fn a_log_is_cut_up_to_what_is_open_and_goes_on_where_it_was() {
    let service = Service::new().await;
    through(&service).await;
    service.database.move_clock("89 days 23 hours").await;
    assert_eq!(cut(&service.store).await, 0, "nothing is old");
    service.database.move_clock("91 days").await;
    let open = service.pending().await;
    service.database.move_clock("200 days").await;
    assert_eq!(cut(&service.store).await, 3);
    assert_eq!((service.database.count(FLOOR).await, service.database.count(EVENTS).await), (3, 1));
    assert_eq!(clear(&service).await, 1, "the open one");

    // It has lapsed, and is settled now: its end is news.
    let late = service.decide(open, Decision::Approve).await;
    assert!(late.is_err());
    let newest = "SELECT max(revision) FROM approval_authority.events";
    assert_eq!(service.database.count(newest).await, 5, "the numbers go on");
    assert_eq!(cut(&service.store).await, 1, "its beginning is old, its end is not");
    assert_eq!(clear(&service).await, 1, "an event refers to it");
    service.database.move_clock("300 days").await;
    assert_eq!(cut(&service.store).await, 1);
    assert_eq!(clear(&service).await, 0);
    service.pending().await;
    assert_eq!(service.database.count(newest).await, 6, "an empty log goes on too");
}

#[tokio::test]
async fn a_denial_stays_as_long_as_its_cooldown() {
    let service = Service::new().await;
    let mut asked = call();
    asked.terms.deny_cooldown = SignedDuration::from_hours(24 * 200);
    let Ok(Gate::Pending(held)) = service.ledger.require(asked.clone()).await else {
        panic!("held")
    };
    service.decide(held.id(), Decision::Deny).await.expect("denied");
    service.database.move_clock("199 days").await;
    assert_eq!(cut(&service.store).await, 2);
    assert_eq!(clear(&service).await, 1);
    let again = service.ledger.require(asked).await.expect("an answer");
    assert!(matches!(again, Gate::Denied { .. }), "{again:?}");
    service.database.move_clock("201 days").await;
    assert_eq!(clear(&service).await, 0);
}

#[tokio::test]
async fn nobody_waits_for_a_cut_and_two_do_not_cut_at_once() {
    let service = Service::new().await;
    through(&service).await;
    service.database.move_clock("91 days").await;
    let mut other = service.database.connect().await;
    let cutting = other.transaction().await.expect("begun");
    for statement in [
        "SELECT floor_revision FROM approval_authority.logs FOR NO KEY UPDATE",
        "DELETE FROM approval_authority.events WHERE revision <= 3",
        "UPDATE approval_authority.logs SET floor_revision = 3",
    ] {
        cutting.batch_execute(statement).await.expect("as the service does");
    }
    assert_eq!(cut(&service.store).await, 0, "another is at it");
    through(&service).await;
    cutting.commit().await.expect("committed");
    assert_eq!(
        service.database.count("SELECT max(revision) FROM approval_authority.events").await,
        6
    );
}

/// Whatever is cut while a reader is on its way: it reads on without a gap, or is told that it cannot.
#[tokio::test]
async fn a_reader_who_is_overtaken_by_a_cut_is_told_so() {
    let service = Service::new().await;
    for _ in 0..4 {
        through(&service).await;
    }
    let start = Position { revision: 0, tag: 0 };
    let read = service.store.events_after(&namespace(), start, 100).await.expect("whole");
    service.database.move_clock("91 days").await;
    through(&service).await;
    assert_eq!(cut(&service.store).await, 12);
    let place = |revision: usize| match revision {
        0 => start,
        _ => Position { revision: read[revision - 1].revision, tag: read[revision - 1].tag },
    };
    for before in 0..12 {
        let gone = service.store.events_after(&namespace(), place(before), 100).await;
        assert_eq!(gone.map(|events| events.len()), Err(Error::CursorExpired), "after {before}");
    }
    let rest = service.store.events_after(&namespace(), place(12), 100).await.expect("it follows");
    assert_eq!(rest.iter().map(|logged| logged.revision).collect::<Vec<_>>(), [13, 14, 15]);

    service.database.move_clock("200 days").await;
    assert_eq!(cut(&service.store).await, 3);
    let nothing = service.store.events_after(&namespace(), start, 100).await;
    assert_eq!(nothing.map(|events| events.len()), Err(Error::CursorExpired), "an empty log too");
    let last = Position { revision: rest[2].revision, tag: rest[2].tag };
    assert!(service.store.events_after(&namespace(), last, 100).await.expect("the end").is_empty());
}

async fn bookmark(
    caller: &Caller,
    after: &str,
    start: Start,
) -> Result<WatchApprovalsResponse, tonic::Status> {
    let request = WatchApprovalsRequest {
        after_cursor: after.to_owned(),
        start: start.into(),
        ..Default::default()
    };
    let mut stream = caller.watch(request).await?;
    Ok(stream.message().await?.expect("a message"))
}

/// Through the wire, with the server's own keeper.
#[tokio::test]
async fn a_server_cuts_by_itself_and_cursors_know_it() {
    let (database, server) = TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let begin = bookmark(&alice, "", Start::Oldest).await.expect("a place").cursor;
    let asked = id(&backend.require("w1", "delete_workspace").await);
    alice.approve(&asked).await;
    assert_eq!(backend.require("w1", "delete_workspace").await.outcome(), Outcome::Approved);
    let end = bookmark(&alice, "", Start::Unspecified).await.expect("a place").cursor;
    database.move_clock("91 days").await;
    while database.count(APPROVALS).await > 0 {
        tokio::task::yield_now().await;
    }
    let expired = bookmark(&alice, &begin, Start::Unspecified).await.expect_err("gone");
    assert_eq!(refusal(&expired), (Code::OutOfRange, "CURSOR_EXPIRED".to_owned()));
    let floor = bookmark(&alice, "", Start::Oldest).await.expect("what is left").cursor;
    assert_eq!(floor, end, "the log begins where it ended");
    bookmark(&alice, &end, Start::Unspecified).await.expect("nothing was missed");
    let missing = alice.get(&asked).await.expect_err("deleted");
    assert_eq!(missing.code(), Code::NotFound);
}

/// One log with much to cut kept all others waiting until it was through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_with_much_to_cut_lets_the_others_have_their_turn() {
    let database = Database::new().await;
    let fill = "INSERT INTO approval_authority.logs (namespace, epoch)
            SELECT unnest('{large,small}'::text[]), gen_random_uuid();
        INSERT INTO approval_authority.approvals (namespace, id, workspace_id, action, context, request_hash,
            requested_by, on_behalf_of, reason, approvals_required, approved_ttl_ms, deny_cooldown_ms, policy_digest,
            recent_denials, create_time, state, version, expire_time)
        SELECT l.namespace, gen_random_uuid(), 'w1', 'delete_workspace', '{}', sha256(''), 'tokens:backend', '', '', 1, 1, 1,
            '', 0, t.time, 'EXPIRED', 1, t.time
        FROM approval_authority.logs AS l CROSS JOIN (SELECT clock_timestamp() - interval '91 days') AS t (time);
        INSERT INTO approval_authority.events (namespace, revision, type, workspace_id, approval_id, version, state,
            verdicts, expire_time, event_time, batch_id)
        SELECT a.namespace, n, 'REVIEWED', 'w1', a.id, n, 'PENDING', '[]', a.create_time, a.create_time, gen_random_uuid()
        FROM approval_authority.approvals AS a
        CROSS JOIN LATERAL generate_series(1, CASE a.namespace WHEN 'large' THEN 50001 ELSE 1 END) AS n";
    database.connect().await.batch_execute(fill).await.expect("filled");
    let mut process = Process::serve(&database.url).await;
    let mut cut = Vec::new();
    while cut.len() < 3 {
        let lines = process.logs("old events were cut").await;
        let line = lines.last().expect("what was waited for").clone();
        let whose = line.split_once("namespace").expect("whose log").1.to_owned();
        cut.push(whose);
    }
    for (line, [namespace, events]) in
        cut.iter().zip([["large", "50000"], ["small", "1"], ["large", "1"]])
    {
        assert!(line.contains(namespace) && line.contains(events), "{cut:#?}");
    }
}

/// What is old and may not be deleted yet is passed over, however much of it comes first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_goes_on_where_the_last_one_ended() {
    let database = Database::new().await;
    let fill = "INSERT INTO approval_authority.logs (namespace, epoch) VALUES ('default', gen_random_uuid());
        INSERT INTO approval_authority.approvals (namespace, id, workspace_id, action, context, request_hash,
            requested_by, on_behalf_of, reason, approvals_required, approved_ttl_ms, deny_cooldown_ms, policy_digest,
            recent_denials, create_time, state, version, expire_time)
        SELECT 'default', (lpad(to_hex((extract(epoch FROM t.time) * 1000)::bigint + n), 12, '0') || '7000'
                || '8' || substr(md5(n::text), 1, 15))::uuid, 'w1', 'delete_workspace', '{}', sha256(''), 'tokens:backend', '', '',
            1, 1, 1, '', 0, t.time, 'EXPIRED', 1,
            CASE n WHEN 50002 THEN t.time ELSE t.time + interval '1 year' END
        FROM generate_series(1, 50002) AS n
        CROSS JOIN (SELECT clock_timestamp() - interval '91 days') AS t (time)";
    database.connect().await.batch_execute(fill).await.expect("filled");
    let _process = Process::serve(&database.url).await;
    while database.count(APPROVALS).await > 50_001 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
