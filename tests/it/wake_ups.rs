//! The two moments at which a call that waits could miss what it waits for, brought about on purpose: the parts of
//! the service are driven by hand.

use std::{pin::pin, time::Duration};

use approval_authority::{
    approval::{
        Decision, Operation,
        gate::{Gate, Require},
        transition::Command,
    },
    digest::Context,
    feed::Feed,
    ledger::Ledger,
    names::{Action, Namespace, Principal, Text, WorkspaceId},
    policy::{
        Gating,
        file::{self, BUILT_IN},
    },
    store::Store,
    waiting,
};
use futures_util::poll;
use tokio::time::{Instant, timeout};

use crate::database::Database;

/// Longer than any of these tests lasts.
const LONG: Duration = Duration::from_secs(60);

fn call() -> Require {
    let policy = file::parse(BUILT_IN).expect("a policy");
    let action = Action::parse("delete_workspace").expect("a name");
    let Ok(Gating::Gated(terms)) = policy.gating(&action) else { panic!("gated") };
    let backend = Principal::parse("tokens:backend").expect("a name");
    let workspace = WorkspaceId::parse("w1").expect("a name");
    Require {
        namespace: Namespace::default_namespace(),
        operation: Operation::new(workspace, action, Context::from_canonical("{}"), backend, None),
        reason: Text::empty(),
        key: None,
        terms,
    }
}

/// A service without its wire, and the approval that is pending there.
struct Service {
    store: Store,
    ledger: Ledger,
    feed: Feed,
}

impl Service {
    async fn new() -> Self {
        let store = Database::new().await.store();
        let ledger = Ledger::new(store.clone());
        let feed = Feed::new(store.clone());
        let running = feed.clone();
        tokio::spawn(async move { running.run().await });
        Self { store, ledger, feed }
    }

    async fn wait(&self) -> Gate {
        let never = std::future::pending();
        let until = Instant::now() + LONG;
        let gate = waiting::require(&self.ledger, &self.feed, call(), until, never).await;
        gate.expect("an answer")
    }

    async fn pending(&self) -> uuid::Uuid {
        match self.ledger.require(call()).await.expect("an answer") {
            Gate::Pending(approval) => approval.id(),
            other => panic!("{other:?}"),
        }
    }

    async fn approve(&self, id: uuid::Uuid) {
        let approve = Command::Decide {
            approver: Principal::parse("tokens:alice").expect("a name"),
            decision: Decision::Approve,
            reason: Text::empty(),
            request_hash: None,
        };
        let decided = self.ledger.command(&Namespace::default_namespace(), id, approve).await;
        decided.expect("approved");
    }
}

fn let_through(gate: &Gate) -> bool {
    matches!(gate, Gate::Approved { .. })
}

#[tokio::test]
async fn what_is_decided_while_the_first_answer_is_on_its_way_is_heard() {
    let service = Service::new().await;
    let id = service.pending().await;
    let log = service.store.log(&Namespace::default_namespace()).await.expect("a log");
    let mut subscription = service.feed.subscribe(&Namespace::default_namespace(), log.end());
    let mut waits = pin!(service.wait());
    assert!(poll!(waits.as_mut()).is_pending(), "it has asked");
    // Asked behind it, and answered: so it is answered too, and has not been told.
    service.pending().await;
    service.approve(id).await;
    subscription.next().await.expect("the feed has told of it");
    let gate = timeout(LONG / 2, waits).await.expect("woken");
    assert!(let_through(&gate), "{gate:?}");
}

#[tokio::test]
async fn what_is_decided_before_the_tail_begins_is_heard() {
    let service = Service::new().await;
    let id = service.pending().await;
    // All the connections that the tailer could read with.
    let mut taken = Vec::new();
    for _ in 0..6 {
        taken.push(service.store.begin_snapshot().await.expect("a connection"));
    }
    let mut waits = pin!(service.wait());
    assert!(poll!(waits.as_mut()).is_pending(), "it has asked");
    service.pending().await;
    assert!(poll!(waits.as_mut()).is_pending(), "it was told, and waits");
    service.approve(id).await;
    drop(taken);
    let gate = timeout(LONG / 2, waits).await.expect("woken");
    assert!(let_through(&gate), "{gate:?}");
}
