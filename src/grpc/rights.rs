//! What a caller may do while a call of its goes on, be it for months: asked again at every reload of policy and tokens,
//! when its credential ends, and once a minute whatever happens.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    auth::{Access, Caller, Scope},
    error::Error,
    names::Namespace,
    policy::Policy,
};

/// Between two looks at a caller's rights.
const INTERVAL: Duration = Duration::from_secs(60);

/// The rights under which a call began, and whether they still hold.
pub(super) struct Rights {
    access: watch::Receiver<Arc<Access>>,
    caller: Caller,
    namespace: Namespace,
    due: Instant,
}

impl Rights {
    /// Of a caller that was let in, in this namespace.
    pub(super) fn new(
        access: &watch::Receiver<Arc<Access>>,
        caller: Caller,
        namespace: Namespace,
    ) -> Self {
        let mut rights = Self { access: access.clone(), caller, namespace, due: Instant::now() };
        rights.schedule();
        rights
    }

    /// Where the rights hold now.
    ///
    /// [`Error::Unauthenticated`] when the credential is no longer good, [`Error::RoleMissing`] when it opens
    /// nothing here any more.
    pub(super) fn now(&mut self) -> Result<Scope, Error> {
        let access = self.access.borrow_and_update().clone();
        self.caller = self.caller.renewed(&access, Timestamp::now())?;
        self.schedule();
        self.caller.scope(&self.namespace).ok_or(Error::RoleMissing)
    }

    /// The policy by which they were looked at last.
    pub(super) fn policy(&self) -> &Policy {
        &self.caller.policy
    }

    /// Where the call is made.
    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Whether they should be looked at again.
    pub(super) fn are_stale(&self) -> bool {
        self.access.has_changed().unwrap_or(false) || Instant::now() >= self.due
    }

    /// Waits until they should be looked at again. Nothing is lost when the future is dropped before it is ready.
    pub(super) async fn look_again(&mut self) {
        let reloaded = async {
            if self.access.changed().await.is_err() {
                // Nobody is there to reload anything.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = reloaded => {}
            () = sleep_until(self.due) => {}
        }
    }

    fn schedule(&mut self) {
        let left = self.caller.expires.map_or(INTERVAL, |expires| {
            let left = expires.duration_since(Timestamp::now());
            Duration::try_from(left).unwrap_or(Duration::ZERO)
        });
        self.due = Instant::now() + left.min(INTERVAL);
    }
}
