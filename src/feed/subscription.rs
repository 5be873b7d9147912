//! One subscriber's place in a log.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::broadcast::{self, error::RecvError};

use super::{PAGE, Tail};
use crate::{
    error::Error,
    names::Namespace,
    store::{Store, events::LoggedEvent},
};

/// Delivers every event of a log after a revision, in order, each once.
pub struct Subscription {
    store: Store,
    namespace: Namespace,
    /// Keeps the tailer alive.
    tail: Arc<Tail>,
    live: broadcast::Receiver<Arc<LoggedEvent>>,
    /// The revision of the last event delivered.
    position: i64,
    /// Read from the table and not yet delivered.
    page: VecDeque<Arc<LoggedEvent>>,
    /// Whether the table may hold events that the tail no longer has.
    behind: bool,
}

impl Subscription {
    pub(super) fn new(store: Store, namespace: Namespace, tail: Arc<Tail>, after: i64) -> Self {
        // From here on the tail is heard; what came before is read from the table.
        let live = tail.events.subscribe();
        Self { store, namespace, tail, live, position: after, page: VecDeque::new(), behind: true }
    }

    /// The next event. Nothing is lost when the future is dropped before it is ready.
    ///
    /// [`Error::CursorExpired`] when retention has removed events that were not delivered.
    pub async fn next(&mut self) -> Result<Arc<LoggedEvent>, Error> {
        loop {
            if let Some(logged) = self.page.pop_front() {
                return self.deliver(logged);
            }
            if self.behind {
                self.read_page().await?;
                continue;
            }
            match self.live.recv().await {
                Ok(logged) if logged.revision <= self.position => {}
                Ok(logged) if logged.revision == self.position + 1 => return self.deliver(logged),
                Ok(_) | Err(RecvError::Lagged(_)) => self.behind = true,
                Err(RecvError::Closed) => return Err(Error::StoreUnavailable),
            }
        }
    }

    /// The newest revision of the log.
    pub async fn head(&self) -> Result<i64, Error> {
        Ok(self.store.log(&self.namespace).await?.head)
    }

    async fn read_page(&mut self) -> Result<(), Error> {
        let page = self.store.events_after(&self.namespace, self.position, PAGE).await?;
        self.behind = !page.is_empty();
        self.page = page.into_iter().map(Arc::new).collect();
        Ok(())
    }

    fn deliver(&mut self, logged: Arc<LoggedEvent>) -> Result<Arc<LoggedEvent>, Error> {
        if logged.revision != self.position + 1 {
            return Err(Error::CursorExpired);
        }
        self.position = logged.revision;
        Ok(logged)
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("namespace", &self.namespace)
            .field("position", &self.position)
            .field("published", &*self.tail.published.borrow())
            .finish_non_exhaustive()
    }
}
