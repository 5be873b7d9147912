//! The keeper: sees to approvals whose time has come, whether or not anybody asks for them. They lapse, or are
//! brought before the next ancestor.
//!
//! Every replica has one and none knows of the others. What is due is carried out by the ledger, which reads the
//! approval again with its locks held: the second of two keepers finds nothing left to do. What is long over it
//! deletes.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::{
    error::Error,
    lasting::lasting,
    ledger::Ledger,
    metrics::{Measures, Rounds},
    store::Store,
};

mod pending;
mod retention;

pub use retention::Retention;

/// Between two looks at what is due: what lapses while nobody calls is settled within about this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the next look waits for what the last one has found.
const PATIENCE: Duration = Duration::from_secs(5);

/// Approvals that are seen to between two looks. Where there are more, the next look follows at once.
const AT_ONCE: i64 = 1000;

/// Not all that is due was seen to; the log says why.
struct StillDue;

/// Sees to approvals whose time has come.
pub struct Keeper {
    store: Store,
    ledger: Ledger,
    retention: Retention,
    counts: Rounds,
}

impl Keeper {
    /// A keeper of all namespaces of this store.
    pub fn new(store: Store, ledger: Ledger, retention: Retention) -> Self {
        Self { store: store.apart(), ledger, retention, counts: Rounds::default() }
    }

    /// Its rounds, and what is pending.
    pub fn measures(&self) -> Measures {
        self.counts.measures()
    }

    /// Works until it is dropped.
    pub async fn run(&self) {
        tokio::join!(
            lasting("keeping deadlines", || self.keep_time()),
            lasting("retention", || retention::run(&self.store, self.retention, &self.counts)),
            lasting("counting", || pending::run(&self.store, &self.counts))
        );
    }

    async fn keep_time(&self) {
        loop {
            let done = self.see_to_what_is_due().await;
            self.counts.ended("deadlines", &done);
            match done {
                Ok(AT_ONCE..) => {}
                Ok(_) | Err(StillDue) => tokio::time::sleep(INTERVAL).await,
            }
        }
    }

    /// Returns how many were seen to.
    async fn see_to_what_is_due(&self) -> Result<i64, StillDue> {
        let due = self.store.due(AT_ONCE).await.map_err(|failure| {
            tracing::warn!(%failure, "what is due could not be read");
            StillDue
        })?;
        // One that hangs, as behind a lock, goes on by itself: the others are not to wait for it.
        let work = due.iter().map(|(namespace, id)| async {
            let keeping = self.ledger.keep(namespace, *id);
            timeout(PATIENCE, keeping).await.unwrap_or(Err(Error::StoreUnavailable))
        });
        let mut done = Ok(due.len() as i64);
        for (kept, (namespace, id)) in join_all(work).await.into_iter().zip(&due) {
            if let Err(error) = kept {
                // The next look finds it again.
                tracing::info!(%error, %namespace, %id, "an approval is still due");
                done = Err(StillDue);
            }
        }
        done
    }
}
