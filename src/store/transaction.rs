//! Transactions. The one place that commits.

use std::{ops::Deref, time::Duration};

use super::{Failure, Lease, Store};

/// How long COMMIT may take before its outcome counts as unknown. This end has to stop waiting by itself:
/// PostgreSQL has switched its `statement_timeout` off by the time that it waits for a silent standby. The
/// session there goes on waiting, with its locks, until the standby speaks.
const COMMIT_PATIENCE: Duration = Duration::from_secs(7);

/// One flight: the settings are for this transaction alone, so they hold behind a pooler too.
/// `client_min_messages` lets the warning through that a commit without its standby leaves as its only
/// trace; it is still in force while COMMIT waits.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
    SET LOCAL client_min_messages = warning; \
    SET LOCAL statement_timeout = '5s'; \
    SET LOCAL lock_timeout = '3s'; \
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
        Self::begin_on(self.connection().await?, BEGIN).await
    }

    /// Begins a transaction whose reads all see the same state.
    pub async fn begin_snapshot(&self) -> Result<Transaction, Failure> {
        Self::begin_on(self.reading_connection().await?, BEGIN_SNAPSHOT).await
    }

    async fn begin_on(lease: Lease, statement: &str) -> Result<Transaction, Failure> {
        lease.set_spoilt(true);
        lease.patiently(lease.batch_execute(statement)).await?;
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
                self.lease.set_spoilt(false);
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
                self.lease.give_up();
                tracing::warn!("COMMIT was not answered: its outcome is unknown");
                Err(Failure::Unknown)
            }
        }
    }

    /// Gives the connection back with nothing changed.
    pub async fn rollback(self) -> Result<(), Failure> {
        self.patiently(self.lease.batch_execute("ROLLBACK")).await?;
        self.lease.set_spoilt(false);
        Ok(())
    }
}

impl Deref for Transaction {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        &self.lease
    }
}
