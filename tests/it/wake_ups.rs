//! The two moments at which a call that waits could miss what it waits for, brought about on purpose.

use std::{pin::pin, time::Duration};

use approval_authority::{
    approval::{Decision, gate::Gate},
    feed::Feed,
    names::Namespace,
    store::{Store, StoreConfig},
    waiting,
};
use futures_util::poll;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::service::{Service, call};

/// Longer than any of these tests lasts.
const LONG: Duration = Duration::from_secs(60);

async fn wait(service: &Service, feed: &Feed) -> Gate {
    let never = std::future::pending();
    let until = Instant::now() + LONG;
    let renewed = || async { Ok(Some(call().terms)) };
    let here = CancellationToken::new();
    let gate = waiting::require(&service.ledger, feed, call(), until, renewed, never, &here).await;
    gate.expect("an answer")
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
    let mut waits = pin!(wait(&service, &service.feed));
    assert!(poll!(waits.as_mut()).is_pending(), "it has asked");
    // Asked behind it, and answered: so it is answered too, and has not been told.
    service.pending().await;
    service.decide(id, Decision::Approve).await.expect("approved");
    subscription.next().await.expect("the feed has told of it");
    let gate = timeout(LONG / 2, waits).await.expect("woken");
    assert!(let_through(&gate), "{gate:?}");
}

#[tokio::test]
async fn what_is_decided_before_the_tail_begins_is_heard() {
    let service = Service::new().await;
    let id = service.pending().await;
    // A feed whose only connection is taken, so that its tailer cannot begin.
    let config = StoreConfig {
        url: service.database.url.clone(),
        notify_url: None,
        pool_size: 1,
        folder: ".".into(),
    };
    let store = Store::new(&config).expect("a store");
    let taken = store.begin_snapshot().await.expect("a connection");
    let feed = Feed::new(store);
    let mut waits = pin!(wait(&service, &feed));
    assert!(poll!(waits.as_mut()).is_pending(), "it has asked");
    service.pending().await;
    assert!(poll!(waits.as_mut()).is_pending(), "it was told, and waits");
    service.decide(id, Decision::Approve).await.expect("approved");
    drop(taken);
    let gate = timeout(LONG / 2, waits).await.expect("woken");
    assert!(let_through(&gate), "{gate:?}");
}
