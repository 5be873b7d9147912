//! How many approvals wait for people, and for how long: counted here, now and then, and not when somebody asks.

use std::time::Duration;

use crate::{
    metrics::{AGES, Rounds},
    store::{Failure, Store},
};

/// Between two counts.
const INTERVAL: Duration = Duration::from_secs(10);

/// Counts until it is dropped.
pub(super) async fn run(store: &Store, counts: &Rounds) {
    loop {
        let done = count(store, counts).await;
        counts.ended("pending", &done);
        if let Err(failure) = done {
            tracing::warn!(%failure, "what is pending could not be counted");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn count(store: &Store, counts: &Rounds) -> Result<(), Failure> {
    let ages = store.pending_ages().await?;
    let mut by_age = [0; AGES.len()];
    for age in &ages {
        let index = AGES.iter().position(|(below, _)| age.as_secs() < *below);
        by_age[index.unwrap_or(AGES.len() - 1)] += 1;
    }
    counts.pending(by_age, ages.into_iter().max().unwrap_or_default());
    Ok(())
}
