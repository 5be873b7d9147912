//! Transactions. The one place that commits.

use std::{ops::Deref, time::Duration};

use super::{Connection, Failure, Lease, Store, patiently};

/// How long COMMIT may take before its outcome counts as unknown. Longer than the server's own
/// `statement_timeout`, which also ends a wait for a silent standby, so that the server speaks first.
const COMMIT_PATIENCE: Duration = Duration::from_secs(7);

/// One flight: the settings are for this transaction alone, so they hold behind a pooler too.
/// `client_min_messages` lets the warning through that a commit without its standby leaves as its only
/// trace; it is still in force while COMMIT waits.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
    SET LOCAL client_min_messages = warning; \
    SET LOCAL statement_timeout = '5s'; \
    SET LOCAL lock_timeout = '4s'; \
    SET LOCAL idle_in_transaction_session_timeout = '15s'";

/// For reads that must agree with one another.
const BEGIN_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
    SET LOCAL statement_timeout = '5s'; \
    SET LOCAL idle_in_transaction_session_timeout = '15s'";

/// A transaction on a connection of its own. Dropped without [`commit`](Self::commit), it closes the
/// connection and so changes nothing.
pub struct Transaction {
    lease: Lease,
}

impl Store {
    /// Begins a transaction that writes.
    pub async fn begin(&self) -> Result<Transaction, Failure> {
        self.begin_with(BEGIN).await
    }

    /// Begins a transaction whose reads all see the same state.
    pub async fn begin_snapshot(&self) -> Result<Transaction, Failure> {
        self.begin_with(BEGIN_SNAPSHOT).await
    }

    async fn begin_with(&self, statement: &str) -> Result<Transaction, Failure> {
        let lease = self.connection().await?;
        patiently(lease.batch_execute(statement)).await?;
        Ok(Transaction { lease })
    }
}

impl Transaction {
    /// Commits; when this returns, the change is durable, on the synchronous standby too where there is one.
    ///
    /// [`Failure::Unknown`] when the server did not say so: the connection died, it took too long, or the
    /// server sent a warning with its answer, as it does when the wait for the standby was cancelled. A
    /// statement of the transaction that failed must not be followed by a call of this: PostgreSQL answers
    /// COMMIT of a failed transaction with ROLLBACK, and no error.
    pub async fn commit(self) -> Result<(), Failure> {
        let before = self.lease.warnings();
        let commit = self.lease.batch_execute("COMMIT");
        match tokio::time::timeout(COMMIT_PATIENCE, commit).await {
            Ok(Ok(())) if self.lease.warnings() == before => {
                self.lease.give_back();
                Ok(())
            }
            Ok(Ok(())) => {
                tracing::warn!("COMMIT came back with a warning: its outcome is unknown");
                Err(Failure::Unknown)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "COMMIT failed: its outcome is unknown");
                Err(Failure::Unknown)
            }
            Err(_) => {
                tracing::warn!("COMMIT was not answered: its outcome is unknown");
                Err(Failure::Unknown)
            }
        }
    }

    /// Gives the connection back with nothing changed.
    pub async fn rollback(self) -> Result<(), Failure> {
        patiently(self.lease.batch_execute("ROLLBACK")).await?;
        self.lease.give_back();
        Ok(())
    }
}

impl Deref for Transaction {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.lease
    }
}
