//! What time does while nobody calls.

use approval_authority::{
    policy::file::BUILT_IN,
    proto::{
        Approval, ApprovalEvent, ApprovalState, Decision, EventType, Outcome, Start,
        WatchApprovalsRequest,
    },
};

use crate::{
    database::Database,
    harness::{BINDINGS, Caller, TestServer, id, refusal},
    watch::events,
};

fn of_type(kind: EventType) -> WatchApprovalsRequest {
    WatchApprovalsRequest {
        start: Start::Oldest.into(),
        event_types: vec![kind.into()],
        ..Default::default()
    }
}

fn approval(event: &ApprovalEvent) -> &Approval {
    event.approval.as_ref().expect("an approval")
}

/// Puts a root, what lies below it, and so on.
async fn put_tree(admin: &Caller, path: &[&str]) {
    let parents = [""].iter().chain(path);
    for (workspace, parent) in path.iter().zip(parents) {
        admin.put_workspace(workspace, parent).await.expect("put");
    }
}

#[tokio::test]
async fn what_lapses_is_settled_while_nobody_calls() {
    let (database, server) = TestServer::new().await;
    let (backend, alice) = (server.caller("backend").await, server.caller("alice").await);
    let pending = id(&backend.require("w1", "delete_workspace").await);
    let approved = id(&backend.require("w2", "delete_workspace").await);
    alice.approve(&approved).await;

    database.move_clock("61 minutes").await;
    let [first] = &events(&alice, of_type(EventType::Expired), 1).await[..] else { panic!("one") };
    assert_eq!((&approval(first).id, approval(first).version), (&approved, 3));
    assert_eq!(first.actor, "");
    assert_eq!(alice.get(&pending).await.expect("it").state(), ApprovalState::Pending);

    database.move_clock("24 hours").await;
    let lapsed = events(&alice, of_type(EventType::Expired), 2).await;
    assert_eq!(approval(&lapsed[1]).id, pending);
    assert_eq!(approval(&lapsed[1]).state(), ApprovalState::Expired);
    let late = alice.decide(&pending, Decision::Approve).await.expect_err("too late");
    assert_eq!(refusal(&late).1, "NOT_PENDING");
    assert_eq!(backend.require("w2", "delete_workspace").await.outcome(), Outcome::Pending);
}

/// By the database's clock, from the deadline to the event. The best of a few: the machine may be busy.
#[tokio::test]
async fn a_lapse_is_told_within_two_seconds() {
    let database = Database::new().await;
    let hasty = BUILT_IN.replace("pending_ttl = \"24h\"", "pending_ttl = \"1s\"");
    let server = TestServer::with_policy(&database.url, &format!("{hasty}{BINDINGS}")).await;
    let backend = server.caller("backend").await;
    let viewer = server.caller("viewer").await;
    for number in 1..=3 {
        backend.require(&format!("w{number}"), "delete_workspace").await;
        events(&viewer, of_type(EventType::Expired), number).await;
    }
    let delay = "SELECT min(extract(epoch FROM e.event_time - a.expire_time) * 1000)::bigint
        FROM approval_authority.events AS e
        JOIN approval_authority.approvals AS a ON a.id = e.approval_id WHERE e.type = 'EXPIRED'";
    let delay = database.count(delay).await;
    println!("told {delay} ms after the deadline, at best");
    assert!((0..=2000).contains(&delay), "{delay} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_keepers_do_nothing_twice() {
    const LAPSING: usize = 300;
    let (database, server) = TestServer::new().await;
    let other = TestServer::on(&database.url).await;
    let backend = server.caller("backend").await;
    let asking = (0..LAPSING).map(|number| {
        let backend = backend.clone();
        async move { backend.require(&format!("w{number}"), "delete_workspace").await }
    });
    futures_util::future::join_all(asking).await;
    database.move_clock("25 hours").await;
    let viewer = other.caller("viewer").await;
    let lapsed = events(&viewer, of_type(EventType::Expired), LAPSING).await;
    assert!(lapsed.iter().all(|event| approval(event).version == 2));
    // A keeper that comes second would have added to the log by the time that it sees to this one.
    let last = id(&backend.require("w1", "secret_write").await);
    database.move_clock("50 hours").await;
    let all = events(&viewer, of_type(EventType::Expired), LAPSING + 1).await;
    assert_eq!(approval(&all[LAPSING]).id, last);
    let told = "SELECT count(*) FROM approval_authority.events";
    assert_eq!(database.count(told).await, 2 * (LAPSING as i64 + 1), "asked and expired, each");
}

#[tokio::test]
async fn a_request_climbs_the_tree_and_keeps_its_deadline() {
    let (database, server) = TestServer::new().await;
    let (backend, admin) = (server.caller("backend").await, server.caller("admin").await);
    put_tree(&admin, &["root", "area", "team", "leaf"]).await;
    let asked = backend.require("leaf", "delete_workspace").await;
    let climbed = |count| {
        let admin = admin.clone();
        async move { events(&admin, of_type(EventType::Escalated), count).await }
    };
    assert_eq!(climbed(1).await[0].workspace_id, "team", "the parent is told at once");
    database.move_clock("61 minutes").await;
    assert_eq!(climbed(2).await[1].workspace_id, "area");
    database.move_clock("241 minutes").await;
    let told = climbed(3).await;
    assert_eq!(told[2].workspace_id, "root");
    let before = asked.approval.expect("it");
    for (event, version) in told.iter().zip(2..) {
        let after = approval(event);
        assert_eq!((&after.id, after.version), (&before.id, version));
        assert_eq!(after.state(), ApprovalState::Pending);
        assert_eq!(after.expire_time, before.expire_time, "no deadline moves");
        assert_eq!(event.actor, "");
    }
    let area_only = WatchApprovalsRequest {
        workspace_ids: vec!["area".to_owned()],
        ..of_type(EventType::Escalated)
    };
    assert_eq!(events(&admin, area_only, 1).await[0].revision, told[1].revision);
}

#[tokio::test]
async fn a_former_ancestor_is_not_told_what_goes_on_below_another() {
    let (database, server) = TestServer::new().await;
    let (backend, admin) = (server.caller("backend").await, server.caller("admin").await);
    put_tree(&admin, &["old-root", "old-area", "team", "leaf"]).await;
    put_tree(&admin, &["new-root", "new-area"]).await;
    backend.require("leaf", "delete_workspace").await;
    admin.put_workspace("team", "new-area").await.expect("moved");
    database.move_clock("5 hours").await;
    let told = events(&admin, of_type(EventType::Escalated), 3).await;
    let told: Vec<&str> = told.iter().map(|event| event.workspace_id.as_str()).collect();
    assert_eq!(told, ["team", "new-area", "new-root"]);
}

#[tokio::test]
async fn a_step_with_nobody_left_above_passes_in_silence_and_is_not_seen_to_again() {
    let (database, server) = TestServer::new().await;
    let backend = server.caller("backend").await;
    let root = id(&backend.require("root", "delete_workspace").await);
    database.move_clock("61 minutes").await;
    let due = "SELECT count(*) FROM approval_authority.approvals
        WHERE state = 'PENDING' AND escalate_time <= approval_authority.clock()";
    while database.count(due).await > 0 {
        tokio::task::yield_now().await;
    }
    let next = "SELECT extract(epoch FROM escalate_time - create_time)::bigint
        FROM approval_authority.approvals";
    assert_eq!(database.count(next).await, 4 * 3600, "the second step");
    let after = backend.get(&root).await.expect("it");
    assert_eq!((after.state(), after.version), (ApprovalState::Pending, 1));
}
