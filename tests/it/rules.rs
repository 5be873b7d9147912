//! The rules of the gate, through the wire, with the database's clock moved on.

use approval_authority::{
    approval::{Decision as Verdict, State, gate::Gate},
    error::Error,
    proto::{ApprovalState, Decision, EventType, Outcome, Start, WatchApprovalsRequest},
};

use crate::{
    harness::{TestServer, context, id, refusal, request, told},
    service::{Service, call},
    watch::events,
};

const EVENTS: &str = "SELECT count(*) FROM approval_authority.events";

#[tokio::test]
async fn a_quorum_takes_distinct_people_and_one_denial_settles() {
    let (database, server) = TestServer::new().await;
    let backend = server.caller("backend").await;
    let (alice, bob) = (server.caller("alice").await, server.caller("bob").await);
    let asked = id(&backend.require("w1", "org_token_mint").await);
    let first = alice.approve(&asked).await;
    assert_eq!((first.state(), first.version), (ApprovalState::Pending, 2));
    assert_eq!(alice.approve(&asked).await, first, "repeated, and nothing happens");
    assert_eq!(backend.require("w1", "org_token_mint").await.outcome(), Outcome::Pending);
    let both = bob.approve(&asked).await;
    assert_eq!((both.state(), both.version), (ApprovalState::Approved, 3));
    assert_eq!(backend.require("w1", "org_token_mint").await.outcome(), Outcome::Approved);

    let asked = id(&backend.require("w2", "org_token_mint").await);
    alice.approve(&asked).await;
    let changed = alice.deny(&asked).await;
    assert_eq!((changed.state(), changed.verdicts.len()), (ApprovalState::Denied, 1));
    let late = alice.decide(&asked, Decision::Approve).await.expect_err("a denial stands");
    assert_eq!(refusal(&late).1, "NOT_PENDING");

    let watch = WatchApprovalsRequest { start: Start::Oldest.into(), ..Default::default() };
    let kinds: Vec<EventType> =
        events(&alice, watch, 7).await.iter().map(|event| event.r#type()).collect();
    let (asked, reviewed) = (EventType::Requested, EventType::Reviewed);
    let (approved, consumed) = (EventType::Approved, EventType::Consumed);
    let settled = [asked, reviewed, approved, consumed, asked, reviewed, EventType::Denied];
    assert_eq!(kinds, settled);
    assert_eq!(database.count(EVENTS).await, 7);
}

#[tokio::test]
async fn no_is_no_for_everybody_until_the_cooldown_is_over() {
    let (database, server) = TestServer::new().await;
    let (backend, other) = (server.caller("backend").await, server.caller("backend-2").await);
    let denied = id(&backend.require("w1", "delete_workspace").await);
    server.caller("alice").await.deny(&denied).await;
    let so_far = database.count(EVENTS).await;
    for (caller, in_the_name_of) in [(&backend, ""), (&backend, "mallory"), (&other, "")] {
        let on_behalf_of = in_the_name_of.to_owned();
        let again = approval_authority::proto::RequireApprovalRequest {
            on_behalf_of,
            ..request("w1", "delete_workspace")
        };
        let refused = caller.ask(again).await.expect("an answer of the gate's");
        assert_eq!(
            (told(&refused), id(&refused)),
            ((Outcome::Denied, ApprovalState::Denied), denied.clone())
        );
    }
    database.move_clock("10 minutes").await;
    let refused = backend.require("w1", "delete_workspace").await;
    let left = refused.retry_after.expect("how long").seconds;
    assert!((240..=300).contains(&left), "{left} s are left of 15 minutes");
    assert_eq!(database.count(EVENTS).await, so_far, "nobody was asked");

    let mut otherwise = request("w1", "delete_workspace");
    otherwise.context = Some(context(&[("force", 1.0)]));
    let otherwise = backend.ask(otherwise).await.expect("held");
    assert_eq!(otherwise.outcome(), Outcome::Pending, "another context");
    assert_eq!(otherwise.approval.expect("it").recent_denials, 1, "and those who decide are told");

    database.move_clock("16 minutes").await;
    let anew = backend.require("w1", "delete_workspace").await;
    assert_eq!(told(&anew), (Outcome::Pending, ApprovalState::Pending));
    assert_eq!(anew.approval.expect("it").recent_denials, 1);
    database.move_clock("25 hours").await;
    let next_day = other.require("w1", "delete_workspace").await;
    assert_eq!(next_day.approval.expect("it").recent_denials, 0);
}

#[tokio::test]
async fn a_command_that_comes_before_the_keeper_settles_what_has_lapsed() {
    let service = Service::new().await;
    let lapsed = service.pending().await;
    service.database.move_clock("25 hours").await;
    let late = service.decide(lapsed, Verdict::Approve).await;
    assert_eq!(late, Err(Error::NotPending(State::Expired)));

    let unused = service.pending().await;
    assert_ne!(unused, lapsed);
    service.decide(unused, Verdict::Approve).await.expect("in time");
    service.database.move_clock("26 hours 1 minute").await;
    let Ok(Gate::Pending(anew)) = service.ledger.require(call()).await else { panic!("held") };
    assert_ne!(anew.id(), unused);
    let log = "SELECT string_agg(type, ' ' ORDER BY revision) FROM approval_authority.events";
    let row = service.database.connect().await.query_one(log, &[]).await.expect("the log");
    assert_eq!(row.get::<_, String>(0), "REQUESTED EXPIRED REQUESTED APPROVED EXPIRED REQUESTED");
}
