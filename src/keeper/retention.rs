//! Retention: old events are cut off the logs and old approvals deleted, in the background.

use std::time::Duration;

use jiff::SignedDuration;
use uuid::Uuid;

use crate::{
    metrics::Rounds,
    names::Namespace,
    store::{Failure, Store},
};

/// Between two rounds.
const INTERVAL: Duration = Duration::from_secs(10);

/// How long what is over is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Closed approvals, counted from when they would have lapsed; at least as long as their events.
    pub closed_approvals: SignedDuration,
    /// Events. A log begins no later than the oldest approval that is open.
    pub events: SignedDuration,
}

/// Deletes what is older than that, until it is dropped.
pub(super) async fn run(store: &Store, retention: Retention, counts: &Rounds) {
    loop {
        let done = one_round(store, retention).await;
        counts.ended("retention", &done);
        if let Err(failure) = done {
            tracing::warn!(%failure, "not all that is old could be deleted; the next round will");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Cuts and clears every log that it is time for; what could not be is told at the end.
async fn one_round(store: &Store, retention: Retention) -> Result<(), Failure> {
    let mut done = Ok(());
    for namespace in store.logs_to_cut(retention.events).await? {
        if let Err(failure) = cut(store, &namespace, retention.events).await {
            tracing::warn!(%failure, %namespace, "the log could not be cut");
            done = Err(failure);
        }
    }
    for namespace in store.logs_to_clear(retention.closed_approvals).await? {
        if let Err(failure) = clear(store, &namespace, retention.closed_approvals).await {
            tracing::warn!(%failure, %namespace, "old approvals could not be deleted");
            done = Err(failure);
        }
    }
    done
}

async fn cut(store: &Store, namespace: &Namespace, age: SignedDuration) -> Result<(), Failure> {
    let mut events = 0;
    loop {
        match store.cut_log(namespace, age).await? {
            0 => break,
            cut => events += cut,
        }
    }
    if events > 0 {
        tracing::info!(%namespace, events, "old events were cut off the log");
    }
    Ok(())
}

async fn clear(store: &Store, namespace: &Namespace, age: SignedDuration) -> Result<(), Failure> {
    let mut after = Uuid::nil();
    while let Some(last) = store.clear_approvals(namespace, age, after).await? {
        after = last;
    }
    if !after.is_nil() {
        tracing::info!(%namespace, "old approvals were deleted");
    }
    Ok(())
}
