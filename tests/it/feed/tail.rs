//! From the table to the tail and back: subscriptions driven by hand, each at the very moment.

use std::{ops::Range, sync::Arc, time::Duration};

use approval_authority::{
    approval::gate::{Gate, Require},
    digest::Context,
    feed::Subscription,
    names::{Action, Namespace, WorkspaceId},
    store::events::Position,
};
use futures_util::future::join_all;
use tokio::time::timeout;

use crate::service::{Service, call, principal};

/// More than the tail keeps.
const MANY: i64 = 1_500;

/// What a subscription has read when it reads a whole page for the first time: it begins with small ones.
const SMALL_PAGES: i64 = 32 + 64 + 128 + 256;

/// A whole page.
const PAGE: i64 = 512;

/// Much longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks about so many workspaces, each of which is an event.
async fn write(service: &Service, revisions: Range<i64>) {
    let asked = revisions.map(|revision| async move {
        let workspace = WorkspaceId::parse(&*format!("w{revision}")).expect("a name");
        let action = Action::parse("delete_workspace").expect("a name");
        let context = Context::from_canonical("{}");
        let operation = approval_authority::approval::Operation::new(
            workspace,
            action,
            context,
            principal("backend"),
            None,
        );
        let gate = service.ledger.require(Require { operation, ..call() }).await;
        assert!(matches!(gate, Ok(Gate::Pending(_))), "{gate:?}");
    });
    join_all(asked).await;
}

fn subscribe(service: &Service) -> Subscription {
    let beginning = Position { revision: 0, tag: 0 };
    service.feed.subscribe(&Namespace::default_namespace(), beginning)
}

/// Takes exactly these revisions.
async fn take(subscription: &mut Subscription, revisions: Range<i64>) {
    for revision in revisions {
        let next = timeout(PATIENCE, subscription.next()).await.expect("not for ever");
        let logged: Arc<_> = next.expect("an event");
        assert_eq!(logged.revision, revision);
    }
}

/// Nobody reads the log as long as this is held.
async fn lock_log(service: &Service) -> tokio_postgres::Client {
    let client = service.database.connect().await;
    let lock = "BEGIN; LOCK TABLE approval_authority.events IN ACCESS EXCLUSIVE MODE";
    client.batch_execute(lock).await.expect("locked");
    client
}

#[tokio::test]
async fn one_that_fell_behind_reads_the_table_until_it_meets_the_tail_and_no_further() {
    let service = Service::new().await;
    let [mut slow, mut quick] = [(); 2].map(|()| subscribe(&service));
    for first in (1..MANY).step_by(250) {
        write(&service, first..first + 250).await;
        take(&mut quick, first..first + 250).await;
    }
    let met = SMALL_PAGES + 1;
    assert!(met > MANY - 1_024, "the tail holds what follows");
    take(&mut slow, 1..met).await;
    let _locked = lock_log(&service).await;
    take(&mut slow, met..MANY + 1).await;
}

#[tokio::test]
async fn what_was_read_ahead_is_not_delivered_once_the_tail_has_been_met() {
    let service = Service::new().await;
    let read = SMALL_PAGES + PAGE;
    for first in (1..read).step_by(248) {
        write(&service, first..first + 248).await;
    }
    // The tail begins here.
    let mut quick = subscribe(&service);
    take(&mut quick, 1..read + 1).await;
    let mut slow = subscribe(&service);
    take(&mut slow, 1..read).await;
    // It reads ahead, and the tail has it all.
    write(&service, read + 1..read + 201).await;
    take(&mut quick, read + 1..read + 201).await;
    take(&mut slow, read..read + 101).await;
    // It falls behind again, further than the tail reaches.
    for first in (read + 201..read + 1_801).step_by(400) {
        write(&service, first..first + 400).await;
        take(&mut quick, first..first + 400).await;
    }
    take(&mut slow, read + 101..read + 1_801).await;
}
