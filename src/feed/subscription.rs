//! One subscriber's place in a log.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::broadcast::{self, error::RecvError};

use super::{FIRST_PAGE, News, PAGE, Tail};
use crate::{
    error::Error,
    names::Namespace,
    store::{
        Store,
        events::{LoggedEvent, Position},
    },
};

/// Delivers every event of a log after a position, in order, each once.
pub struct Subscription {
    store: Store,
    namespace: Namespace,
    /// Keeps the tailer alive.
    tail: Arc<Tail>,
    live: broadcast::Receiver<News>,
    /// Where the last event that was delivered stands.
    position: Position,
    /// Read from the table and not yet delivered.
    page: VecDeque<Arc<LoggedEvent>>,
    /// How many to read next.
    page_size: i64,
    /// Whether the table may hold events that the tail does not.
    behind: bool,
}

impl Subscription {
    pub(super) fn new(
        store: Store,
        namespace: Namespace,
        tail: Arc<Tail>,
        after: Position,
    ) -> Self {
        // From here on the tail is heard; what came before is read from the table.
        let live = tail.news.subscribe();
        Self {
            store,
            namespace,
            tail,
            live,
            position: after,
            page: VecDeque::new(),
            page_size: FIRST_PAGE,
            behind: true,
        }
    }

    /// The next event. Nothing is lost when the future is dropped before it is ready.
    ///
    /// [`Error::CursorExpired`] when retention has removed events that were not delivered, and
    /// [`Error::HistoryChanged`] when the last one that was delivered is no longer in the log.
    pub async fn next(&mut self) -> Result<Arc<LoggedEvent>, Error> {
        loop {
            if let Some(logged) = self.page.pop_front() {
                return Ok(self.deliver(logged));
            }
            if self.behind {
                self.read_page().await?;
                continue;
            }
            match self.live.recv().await {
                Ok(News::Event(logged)) if self.comes_next(&logged) => {
                    return Ok(self.deliver(logged));
                }
                Ok(News::Event(logged)) if logged.revision <= self.position.revision => {}
                Ok(News::Event(_) | News::LookAgain) | Err(RecvError::Lagged(_)) => {
                    self.behind = true;
                }
                Err(RecvError::Closed) => return Err(Error::StoreUnavailable),
            }
        }
    }

    /// Forgets what has been read and not delivered: it is read again when the next event is asked for.
    pub fn let_go(&mut self) {
        self.page_size = FIRST_PAGE;
        if !self.page.is_empty() {
            self.page = VecDeque::new();
            self.behind = true;
        }
    }

    /// The newest revision of the log.
    pub async fn head(&self) -> Result<i64, Error> {
        Ok(self.store.log(&self.namespace).await?.head)
    }

    /// Reads on in the table. When there is nothing more, whatever comes next comes from the tail: it has been
    /// heard since before the table was read, and where it began, which it does without a word, was read too.
    async fn read_page(&mut self) -> Result<(), Error> {
        let mut published = self.tail.published.subscribe();
        if published.wait_for(Option::is_some).await.is_err() {
            return Err(Error::StoreUnavailable);
        }
        // Boxed, as a subscriber that waits should be small.
        let reading = self.store.events_after(&self.namespace, self.position, self.page_size);
        let page = Box::pin(reading).await?;
        self.page_size = PAGE.min(self.page_size * 2);
        self.behind = !page.is_empty();
        self.page = page.into_iter().map(Arc::new).collect();
        Ok(())
    }

    fn comes_next(&self, logged: &LoggedEvent) -> bool {
        logged.revision == self.position.revision + 1 && logged.follows == self.position.tag
    }

    fn deliver(&mut self, logged: Arc<LoggedEvent>) -> Arc<LoggedEvent> {
        self.position = Position { revision: logged.revision, tag: logged.tag };
        logged
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
