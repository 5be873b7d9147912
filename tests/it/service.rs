//! The service without its wire: the ledger and the feed on a database, driven by hand. There is no keeper.

use approval_authority::{
    approval::{
        Approval, Decision, Operation,
        gate::{Gate, Require},
        transition::Command,
    },
    digest::Context,
    error::Error,
    feed::Feed,
    ledger::Ledger,
    names::{Action, Namespace, Principal, Text, WorkspaceId},
    policy::{
        Gating,
        file::{self, BUILT_IN},
    },
    store::Store,
};
use uuid::Uuid;

use crate::database::Database;

/// A ledger and a feed.
pub struct Service {
    pub database: Database,
    pub store: Store,
    pub ledger: Ledger,
    pub feed: Feed,
}

/// The principal of a token.
pub fn principal(subject: &str) -> Principal {
    Principal::parse(format!("tokens:{subject}")).expect("a name")
}

/// A call of the backend's to delete "w1", under the built-in policy.
pub fn call() -> Require {
    let policy = file::parse(BUILT_IN).expect("a policy");
    let action = Action::parse("delete_workspace").expect("a name");
    let Ok(Gating::Gated(terms)) = policy.gating(&action) else { panic!("gated") };
    let workspace = WorkspaceId::parse("w1").expect("a name");
    let context = Context::from_canonical("{}");
    Require {
        namespace: Namespace::default_namespace(),
        operation: Operation::new(workspace, action, context, principal("backend"), None),
        reason: Text::empty(),
        key: None,
        terms,
    }
}

impl Service {
    pub async fn new() -> Self {
        let database = Database::new().await;
        let store = database.store();
        let ledger = Ledger::new(store.clone());
        let feed = Feed::new(store.clone());
        let running = feed.clone();
        tokio::spawn(async move { running.run().await });
        Self { database, store, ledger, feed }
    }

    /// Asks, and is held.
    pub async fn pending(&self) -> Uuid {
        match self.ledger.require(call()).await.expect("an answer") {
            Gate::Pending(approval) => approval.id(),
            other => panic!("{other:?}"),
        }
    }

    /// A verdict of alice's.
    pub async fn decide(&self, id: Uuid, decision: Decision) -> Result<Approval, Error> {
        let verdict = Command::Decide {
            approver: principal("alice"),
            decision,
            reason: Text::empty(),
            request_hash: None,
        };
        self.ledger.command(&Namespace::default_namespace(), id, verdict).await
    }
}
