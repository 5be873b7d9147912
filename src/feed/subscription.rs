//! One subscriber's place in a log.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};
use tokio_util::task::AbortOnDropHandle;

use super::{FIRST_PAGE, News, PAGE, Tail};
use crate::{
    error::Error,
    names::Namespace,
    store::{
        Store,
        events::{LoggedEvent, Position},
    },
};

/// Contexts that a subscriber holds of a page, in bytes; one event it holds however large.
const PAGE_BYTES: usize = 1024 * 1024;

/// Of large events so many are read at once.
const LEAST_PAGE: i64 = 16;

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
    beyond: Beyond,
}

/// Where the events after the page are found.
enum Beyond {
    /// In the table, if there are any that the tail does not have. One that has taken many, and has many to come, has
    /// them read while the page is delivered.
    Table(Option<Reading>),
    /// In the tail: it has been heard since before the table was read to its end.
    Tail,
}

/// A page that is being read. It is not, once nobody wants it.
type Reading = AbortOnDropHandle<Result<Vec<LoggedEvent>, Error>>;

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
            beyond: Beyond::Table(None),
        }
    }

    /// The next event. Nothing is lost when the future is dropped before it is ready.
    ///
    /// [`Error::CursorExpired`] when retention has removed events that were not delivered, and
    /// [`Error::HistoryChanged`] when the last one that was delivered is no longer in the log.
    pub async fn next(&mut self) -> Result<Arc<LoggedEvent>, Error> {
        loop {
            if let Some(logged) = self.in_hand() {
                return Ok(logged);
            }
            if let Beyond::Table(_) = self.beyond {
                if let Some(logged) = self.meet_tail() {
                    return Ok(self.deliver(logged));
                }
                self.read_page().await?;
                continue;
            }
            match self.live.recv().await {
                Ok(News::Event(logged)) if self.comes_next(&logged) => {
                    return Ok(self.deliver(logged));
                }
                Ok(News::Event(logged)) if logged.revision <= self.position.revision => {}
                Ok(News::Event(_) | News::LookAgain) | Err(RecvError::Lagged(_)) => {
                    self.beyond = Beyond::Table(None);
                }
                Err(RecvError::Closed) => return Err(Error::StoreUnavailable),
            }
        }
    }

    /// The next event, if it has been read already.
    pub fn in_hand(&mut self) -> Option<Arc<LoggedEvent>> {
        let logged = self.page.pop_front()?;
        Some(self.deliver(logged))
    }

    /// Forgets what has been read and not delivered: it is read again when the next event is asked for.
    pub fn let_go(&mut self) {
        self.page_size = FIRST_PAGE;
        if let Beyond::Table(_) = self.beyond {
            self.page = VecDeque::new();
            self.beyond = Beyond::Table(None);
        }
    }

    /// The newest revision of the log.
    pub async fn head(&self) -> Result<i64, Error> {
        Ok(self.store.log(&self.namespace).await?.head)
    }

    /// The next event, if the tail still holds it: then the table need not be read to its end.
    fn meet_tail(&mut self) -> Option<Arc<LoggedEvent>> {
        loop {
            match self.live.try_recv() {
                Ok(News::Event(logged)) if self.comes_next(&logged) => {
                    self.beyond = Beyond::Tail;
                    return Some(logged);
                }
                Ok(News::Event(logged)) if logged.revision <= self.position.revision => {}
                Err(TryRecvError::Lagged(_)) => {}
                // What it has told is in the table, too.
                Ok(News::Event(_) | News::LookAgain)
                | Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }

    /// Reads on in the table. When there is nothing more now, whatever comes next comes from the tail: it has been
    /// heard since before the table was read, and where it began, which it does without a word, was read too.
    async fn read_page(&mut self) -> Result<(), Error> {
        let mut published = self.tail.published.subscribe();
        if published.wait_for(Option::is_some).await.is_err() {
            return Err(Error::StoreUnavailable);
        }
        let (page, read_ahead) = match &mut self.beyond {
            Beyond::Table(Some(reading)) => {
                (reading.await.unwrap_or_else(|end| Err(Error::internal(end))), true)
            }
            // Boxed, as a subscriber that waits should be small.
            Beyond::Table(None) | Beyond::Tail => (Box::pin(self.read(self.position)).await, false),
        };
        // Whatever came of it, it is not asked again.
        self.beyond = Beyond::Table(None);
        let mut page = page?;
        let context =
            |logged: &LoggedEvent| logged.event.approval.request.operation.context.as_str().len();
        let (kept, size) = fitting(page.iter().map(context), self.page_size);
        page.truncate(kept);
        self.page_size = size;
        self.beyond = match page.last() {
            // The tail may have begun anew since, behind what happened meanwhile.
            None if read_ahead => Beyond::Table(None),
            None => Beyond::Tail,
            Some(last) if page.len() == PAGE as usize && size == PAGE => {
                let next = self.read(Position { revision: last.revision, tag: last.tag });
                Beyond::Table(Some(AbortOnDropHandle::new(tokio::spawn(next))))
            }
            Some(_) => Beyond::Table(None),
        };
        self.page = page.into_iter().map(Arc::new).collect();
        Ok(())
    }

    /// Reads a page.
    fn read(
        &self,
        after: Position,
    ) -> impl Future<Output = Result<Vec<LoggedEvent>, Error>> + Send + use<> {
        let (store, namespace, size) = (self.store.clone(), self.namespace.clone(), self.page_size);
        async move { store.events_after(&namespace, after, size).await }
    }

    fn comes_next(&self, logged: &LoggedEvent) -> bool {
        logged.revision == self.position.revision + 1 && logged.follows == self.position.tag
    }

    fn deliver(&mut self, logged: Arc<LoggedEvent>) -> Arc<LoggedEvent> {
        self.position = Position { revision: logged.revision, tag: logged.tag };
        logged
    }
}

/// Of a page that was read, how many are kept, and how many to read next: as many as are not too large, each with its context, to
/// be held for one subscriber.
fn fitting(contexts: impl Iterator<Item = usize>, size: i64) -> (usize, i64) {
    let (mut bytes, mut kept) = (0, 0);
    for context in contexts {
        bytes += context;
        if bytes > PAGE_BYTES && kept > 0 {
            return (kept, (size / 2).max(LEAST_PAGE));
        }
        kept += 1;
    }
    (kept, if 4 * bytes > PAGE_BYTES { size } else { PAGE.min(size * 2) })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_as_long_as_its_events_are_small() {
        let of =
            |count: usize, bytes: usize, size| fitting([bytes].repeat(count).into_iter(), size);
        assert_eq!(of(32, 2, 32), (32, 64), "twice as many next");
        assert_eq!(of(512, 2, 512), (512, 512));
        assert_eq!(of(0, 0, 32), (0, 64));
        assert_eq!(of(32, 32 * 1024, 32), (32, 32), "as many as there may be");
        assert_eq!(of(512, 64 * 1024, 512), (16, 256), "the rest is read again, fewer at once");
        assert_eq!(of(20, 64 * 1024, 20), (16, 16));
        assert_eq!(of(2, 2 * PAGE_BYTES, 16), (1, 16), "one there is, however large");
    }
}
