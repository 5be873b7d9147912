//! Retention: old events are cut off the logs and old approvals deleted, in the background.

use std::{collections::HashMap, time::Duration};

use jiff::SignedDuration;
use uuid::Uuid;

use crate::{
    metrics::Rounds,
    names::Namespace,
    store::{Failure, Store},
};

/// Between two rounds.
const INTERVAL: Duration = Duration::from_secs(10);

/// Chunks that are deleted of one log before it is the turn of the next: what has piled up in one is not to keep the others
/// waiting for days.
const CHUNKS: usize = 50;

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
    let mut places = Places::default();
    loop {
        let done = one_round(store, retention, &mut places).await;
        counts.ended("retention", &done);
        match done {
            Ok(Left::More) => {}
            Ok(Left::Nothing) => tokio::time::sleep(INTERVAL).await,
            Err(failure) => {
                tracing::warn!(%failure, "not all that is old could be deleted; the next round will");
                tokio::time::sleep(INTERVAL).await;
            }
        }
    }
}

/// What a round leaves for the next, which follows at once where that is more than nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    More,
}

/// How far each namespace's old approvals have been looked at: of those that may not be deleted yet there can be any number.
type Places = HashMap<Namespace, Uuid>;

/// Cuts and clears every log that it is time for; what could not be is told at the end.
async fn one_round(
    store: &Store,
    retention: Retention,
    places: &mut Places,
) -> Result<Left, Failure> {
    let mut done = Ok(Left::Nothing);
    for namespace in store.logs_to_cut(retention.events).await? {
        match cut(store, &namespace, retention.events).await {
            Ok(Left::Nothing) => {}
            Ok(Left::More) => done = done.and(Ok(Left::More)),
            Err(failure) => {
                tracing::warn!(%failure, %namespace, "the log could not be cut");
                done = Err(failure);
            }
        }
    }
    for namespace in store.logs_to_clear(retention.closed_approvals).await? {
        if let Err(failure) = clear(store, &namespace, retention.closed_approvals, places).await {
            tracing::warn!(%failure, %namespace, "old approvals could not be deleted");
            done = Err(failure);
        }
    }
    done
}

async fn cut(store: &Store, namespace: &Namespace, age: SignedDuration) -> Result<Left, Failure> {
    let (mut events, mut left) = (0, Left::More);
    for _ in 0..CHUNKS {
        match store.cut_log(namespace, age).await? {
            0 => {
                left = Left::Nothing;
                break;
            }
            cut => events += cut,
        }
    }
    if events > 0 {
        tracing::info!(%namespace, events, "old events were cut off the log");
    }
    Ok(left)
}

/// Goes on where the last round ended, and begins anew after the last.
async fn clear(
    store: &Store,
    namespace: &Namespace,
    age: SignedDuration,
    places: &mut Places,
) -> Result<(), Failure> {
    for _ in 0..CHUNKS {
        let after = places.get(namespace).copied().unwrap_or(Uuid::nil());
        match store.clear_approvals(namespace, age, after).await? {
            Some(last) => places.insert(namespace.clone(), last),
            None => {
                places.remove(namespace);
                break;
            }
        };
    }
    Ok(())
}
