//! The feed, as a subscriber sees it.

use approval_authority::{
    feed::Feed,
    names::Namespace,
    proto::{
        self, ApprovalEvent, EventType, Start, WatchApprovalsRequest, WatchApprovalsResponse,
        watch_approvals_response::Message,
    },
};
use tonic::Code;

use crate::{
    harness::{Caller, TestServer, id, refusal, request},
    server::Process,
};

/// The first events of a watch. Streams never go quiet, so it is the wait for all of them that has a deadline.
pub async fn events(
    caller: &Caller,
    request: WatchApprovalsRequest,
    count: usize,
) -> Vec<ApprovalEvent> {
    let mut stream = caller.watch(request).await.expect("a stream");
    let mut events = Vec::new();
    let all = async {
        while events.len() < count {
            if let Some(Message::Event(event)) = next(&mut stream).await.message {
                events.push(event);
            }
        }
    };
    let came = tokio::time::timeout(std::time::Duration::from_secs(60), all).await;
    assert!(came.is_ok(), "{count} events do not come: {events:#?}");
    events
}

pub fn from(start: Start) -> WatchApprovalsRequest {
    WatchApprovalsRequest { start: start.into(), ..Default::default() }
}

pub fn after(cursor: &str) -> WatchApprovalsRequest {
    WatchApprovalsRequest { after_cursor: cursor.to_owned(), ..Default::default() }
}

pub async fn next(stream: &mut tonic::Streaming<WatchApprovalsResponse>) -> WatchApprovalsResponse {
    stream.message().await.expect("a message").expect("no end")
}

pub fn revision(response: &WatchApprovalsResponse) -> i64 {
    match response.message.as_ref().expect("a message") {
        Message::Event(event) => event.revision,
        Message::Bookmark(bookmark) => bookmark.revision,
        Message::PendingApproval(_) => panic!("a pending approval has no revision"),
    }
}

#[tokio::test]
async fn the_first_message_comes_at_once_and_events_follow_as_they_happen() {
    let (_, server) = TestServer::new().await;
    let (backend, viewer) = (server.caller("backend").await, server.caller("viewer").await);
    backend.require("w0", "delete_workspace").await;
    let mut stream = viewer.watch(from(Start::Unspecified)).await.expect("a stream");
    let first = next(&mut stream).await;
    assert!(matches!(first.message, Some(Message::Bookmark(ref mark)) if mark.revision == 1));
    let held = backend.require("w1", "delete_workspace").await;
    let second = next(&mut stream).await;
    let Some(Message::Event(event)) = second.message else { panic!("an event") };
    assert_eq!((event.revision, event.r#type()), (2, EventType::Requested));
    assert_eq!(event.approval.expect("it").id, id(&held));
    assert_eq!(event.actor, "tokens:backend");
}

#[tokio::test]
async fn pending_approvals_come_first_and_then_what_happens_after() {
    let (_, server) = TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let settled = backend.require("w0", "delete_workspace").await;
    alice.approve(&id(&settled)).await;
    let one = backend.require("w1", "delete_workspace").await;
    let two = backend.require("w2", "delete_workspace").await;
    let mut stream = alice.watch(from(Start::Pending)).await.expect("a stream");
    for expected in [&one, &two] {
        let response = next(&mut stream).await;
        assert_eq!(response.cursor, "");
        let Some(Message::PendingApproval(approval)) = response.message else {
            panic!("a pending approval")
        };
        assert_eq!(approval.id, id(expected));
    }
    let mark = next(&mut stream).await;
    assert!(matches!(mark.message, Some(Message::Bookmark(ref m)) if m.pending_complete));
    alice.approve(&id(&one)).await;
    let Some(Message::Event(event)) = next(&mut stream).await.message else { panic!("an event") };
    assert_eq!((event.revision, event.r#type()), (5, EventType::Approved));
}

#[tokio::test]
async fn an_approval_that_was_brought_before_a_parent_is_pending_there_too() {
    let (_, server) = TestServer::new().await;
    let (backend, admin) = (server.caller("backend").await, server.caller("admin").await);
    admin.put_workspace("root", "").await.expect("put");
    admin.put_workspace("child", "root").await.expect("put");
    let held = backend.require("child", "delete_workspace").await;
    backend.require("elsewhere", "delete_workspace").await;
    let mut watch = from(Start::Pending);
    watch.workspace_ids = vec!["root".to_owned()];
    let mut stream = admin.watch(watch).await.expect("a stream");
    let Some(Message::PendingApproval(approval)) = next(&mut stream).await.message else {
        panic!("a pending approval")
    };
    assert_eq!(approval.id, id(&held));
    assert!(matches!(next(&mut stream).await.message, Some(Message::Bookmark(_))));
}

#[tokio::test]
async fn filters_hold_back_what_was_not_asked_for() {
    let (_, server) = TestServer::new().await;
    let (backend, admin) = (server.caller("backend").await, server.caller("admin").await);
    let alice = server.caller("alice").await;
    for (workspace, parent) in [("root", ""), ("child", "root"), ("other", "")] {
        admin.put_workspace(workspace, parent).await.expect("put");
    }
    let child = backend.require("child", "delete_workspace").await;
    backend.require("other", "delete_workspace").await;
    alice.approve(&id(&child)).await;

    let mut of_root = from(Start::Oldest);
    of_root.workspace_ids = vec!["root".to_owned()];
    let seen = events(&alice, of_root.clone(), 1).await;
    assert_eq!((seen[0].revision, seen[0].r#type()), (2, EventType::Escalated));
    of_root.include_descendants = true;
    let seen: Vec<i64> = events(&alice, of_root, 3).await.iter().map(|e| e.revision).collect();
    assert_eq!(seen, [1, 2, 4]);
    let mut approvals = from(Start::Oldest);
    approvals.event_types = vec![EventType::Approved.into()];
    assert_eq!(events(&alice, approvals, 1).await[0].revision, 4);
}

#[tokio::test]
async fn a_caller_sees_its_own_part_of_the_tree() {
    let (_, server) = TestServer::new().await;
    let (backend, admin) = (server.caller("backend").await, server.caller("admin").await);
    admin.put_workspace("tree", "").await.expect("put");
    admin.put_workspace("branch", "tree").await.expect("put");
    backend.require("outside", "delete_workspace").await;
    let inside = backend.require("branch", "delete_workspace").await;
    let tree = server.caller("tree-approver").await;
    let seen: Vec<i64> =
        events(&tree, from(Start::Oldest), 2).await.iter().map(|e| e.revision).collect();
    assert_eq!(seen, [2, 3]);
    let listed = tree.list(proto::ListApprovalsRequest::default()).await.expect("a page");
    let ids: Vec<&str> = listed.approvals.iter().map(|a| a.id.as_str()).collect();
    assert_eq!(ids, [id(&inside)]);
}

#[tokio::test]
async fn cursors_that_cannot_be_resumed_are_refused_before_anything_is_sent() {
    let (database, server) = TestServer::new().await;
    let (backend, viewer) = (server.caller("backend").await, server.caller("viewer").await);
    for workspace in ["w1", "w2", "w3"] {
        backend.require(workspace, "delete_workspace").await;
    }
    let mut stream = viewer.watch(from(Start::Oldest)).await.expect("a stream");
    let mut cursors = Vec::new();
    for _ in 0..4 {
        cursors.push(next(&mut stream).await.cursor);
    }
    let refused = |cursor: String| {
        let viewer = viewer.clone();
        async move { refusal(&viewer.watch(after(&cursor)).await.expect_err("no such place")) }
    };
    let invalid = (Code::InvalidArgument, "CURSOR_INVALID".to_owned());
    assert_eq!(refused("garbage".to_owned()).await, invalid);
    assert_eq!(refused(cursors[3][..20].to_owned()).await, invalid);

    let client = database.connect().await;
    let lose_the_tail = "DELETE FROM approval_authority.events WHERE revision = 3";
    client.batch_execute(lose_the_tail).await.expect("deleted");
    let changed = (Code::FailedPrecondition, "HISTORY_CHANGED".to_owned());
    assert_eq!(refused(cursors[3].clone()).await, changed, "it is ahead of the log");
    backend.require("w4", "delete_workspace").await;
    assert_eq!(refused(cursors[3].clone()).await, changed, "another event stands there");

    let cut = "DELETE FROM approval_authority.events WHERE revision <= 2;
        UPDATE approval_authority.logs SET floor_revision = 2";
    client.batch_execute(cut).await.expect("cut");
    let expired = (Code::OutOfRange, "CURSOR_EXPIRED".to_owned());
    assert_eq!(refused(cursors[1].clone()).await, expired);
    let new_epoch = "UPDATE approval_authority.logs SET epoch = gen_random_uuid()";
    client.batch_execute(new_epoch).await.expect("another history");
    assert_eq!(refused(cursors[2].clone()).await, changed);
}

#[tokio::test]
async fn start_and_cursor_exclude_each_other() {
    let (_, server) = TestServer::new().await;
    let viewer = server.caller("viewer").await;
    let mut both = from(Start::Oldest);
    both.after_cursor = "x".to_owned();
    let refused = viewer.watch(both).await.expect_err("both");
    assert_eq!(refusal(&refused), (Code::InvalidArgument, "FIELD_INVALID".to_owned()));
}

/// A watcher went on by number alone, and missed what another history held at numbers it had passed.
#[tokio::test]
async fn a_live_watcher_is_told_when_the_log_loses_its_tail() {
    let (database, server) = TestServer::new().await;
    let (backend, viewer) = (server.caller("backend").await, server.caller("viewer").await);
    backend.require("w1", "delete_workspace").await;
    let lost = backend.require("w2", "delete_workspace").await;
    let mut stream = viewer.watch(from(Start::Oldest)).await.expect("a stream");
    for expected in 0..=2 {
        assert_eq!(revision(&next(&mut stream).await), expected);
    }
    let client = database.connect().await;
    let lose = format!(
        "DELETE FROM approval_authority.events WHERE revision = 2;
         DELETE FROM approval_authority.approvals WHERE id = '{}'",
        id(&lost)
    );
    client.batch_execute(&lose).await.expect("lost");
    backend.require("w3", "delete_workspace").await;
    backend.require("w4", "delete_workspace").await;
    let ended = stream.message().await.expect_err("it cannot go on");
    assert_eq!(refusal(&ended), (Code::FailedPrecondition, "HISTORY_CHANGED".to_owned()));
    let anew: Vec<i64> =
        events(&viewer, from(Start::Oldest), 3).await.iter().map(|e| e.revision).collect();
    assert_eq!(anew, [1, 2, 3], "the tailer has begun anew");
}

/// A tailer that found its head only after the subscriber had read an empty page sent nothing, and woke nobody.
#[tokio::test]
async fn an_event_between_the_subscribers_read_and_the_tailers_first_is_delivered() {
    let (database, server) = TestServer::new().await;
    server.caller("backend").await.require("w1", "delete_workspace").await;
    let namespace = Namespace::default_namespace();
    let log = database.store().log(&namespace).await.expect("a log");
    // Nothing runs this feed, so no wake-up and no poll comes to its help.
    let feed = Feed::new(database.store());
    let mut client = database.connect().await;
    let writer = client.transaction().await.expect("begun");
    writer.batch_execute("LOCK TABLE approval_authority.logs").await.expect("locked");
    let mut subscription = feed.subscribe(&namespace, log.end());
    let next = tokio::spawn(async move { subscription.next().await });
    database.until_a_lock_is_waited_for().await;
    // A subscriber that does not wait for its tailer reads its empty page now; one that does is not seen to.
    let has_read = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND state = 'idle' AND query LIKE '-- events_after%'";
    let until = std::time::Instant::now() + std::time::Duration::from_millis(500);
    while database.count(has_read).await == 0 && std::time::Instant::now() < until {
        tokio::task::yield_now().await;
    }
    let append = "INSERT INTO approval_authority.events (namespace, revision, type, workspace_id,
            approval_id, version, state, verdicts, expire_time, event_time, batch_id)
        SELECT namespace, revision + 1, 'ESCALATED', workspace_id, approval_id, version + 1, state,
            verdicts, expire_time, event_time, gen_random_uuid() FROM approval_authority.events";
    writer.batch_execute(append).await.expect("appended");
    writer.commit().await.expect("committed");
    let next = tokio::time::timeout(std::time::Duration::from_secs(10), next).await;
    let logged = next.expect("in time").expect("no panic").expect("an event");
    assert_eq!(logged.revision, log.head + 1);
}

/// An empty page was explained by a log that had grown meanwhile, and its reader was told that it had been replaced.
#[tokio::test]
async fn an_event_between_an_empty_page_and_the_look_at_why_it_is_empty_is_none_of_another_history()
{
    let (database, server) = TestServer::new().await;
    server.caller("backend").await.require("w1", "delete_workspace").await;
    let namespace = Namespace::default_namespace();
    let store = database.store();
    let end = store.log(&namespace).await.expect("a log").end();
    drop(server);
    let mut client = database.connect().await;
    let cut = format!(
        "UPDATE approval_authority.logs SET floor_revision = {}, floor_tag = {};
         CREATE TEMPORARY TABLE cut AS SELECT * FROM approval_authority.events;
         DELETE FROM approval_authority.events",
        end.revision, end.tag
    );
    client.batch_execute(&cut).await.expect("cut");
    let writer = client.transaction().await.expect("begun");
    writer.batch_execute("LOCK TABLE approval_authority.logs").await.expect("locked");
    let page = tokio::spawn({
        let namespace = namespace.clone();
        async move { store.events_after(&namespace, end, 10).await }
    });
    database.until_a_lock_is_waited_for().await;
    let append = "UPDATE cut SET revision = 2, version = 2, batch_id = gen_random_uuid();
        INSERT INTO approval_authority.events SELECT * FROM cut";
    writer.batch_execute(append).await.expect("appended");
    writer.commit().await.expect("committed");
    let page = page.await.expect("no panic").expect("the same history");
    assert!(page.is_empty(), "{page:?}");
    let next = database.store().events_after(&namespace, end, 10).await.expect("it goes on");
    assert_eq!(next.len(), 1);
}

/// Events written through two servers while a watcher dies and resumes again and again.
const EVENTS: usize = 20_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_dies_and_resumes_sees_each_event_once() {
    let database = crate::database::Database::new().await;
    let (one, two) = (Process::serve(&database.url).await, Process::serve(&database.url).await);
    let mut writers = Vec::new();
    for writer in 0..32 {
        let server = if writer % 2 == 0 { &one } else { &two };
        let backend = server.caller("backend").await;
        writers.push(tokio::spawn(async move {
            for number in 0..EVENTS / 32 {
                let workspace = format!("w{writer}-{number}");
                backend.ask(request(&workspace, "delete_workspace")).await.expect("held");
            }
        }));
    }
    let mut cursor = String::new();
    let mut seen: Vec<i64> = Vec::new();
    let mut lives = 0;
    while seen.len() < EVENTS {
        let server = if lives % 2 == 0 { &two } else { &one };
        let start = if cursor.is_empty() { from(Start::Oldest) } else { after(&cursor) };
        let mut stream = server.caller("viewer").await.watch(start).await.expect("a stream");
        // Each life is of another length; the next begins on the other server.
        for _ in 0..400 + 137 * (lives % 9) {
            let response = next(&mut stream).await;
            if matches!(response.message, Some(Message::Event(_))) {
                seen.push(revision(&response));
            } else {
                assert!(revision(&response) >= seen.last().copied().unwrap_or(0));
            }
            cursor = response.cursor;
            if seen.len() == EVENTS {
                break;
            }
        }
        lives += 1;
    }
    for writer in writers {
        writer.await.expect("written");
    }
    let expected: Vec<i64> = (1..=EVENTS as i64).collect();
    assert_eq!(seen, expected, "in order, without a gap, each once");
    let logged = database.count("SELECT max(revision) FROM approval_authority.events").await;
    println!("{EVENTS} events seen once, in order, over {lives} lives of the watcher");
    assert_eq!(logged, EVENTS as i64);
}
