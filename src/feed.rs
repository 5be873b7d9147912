//! The feed: tails each log that somebody here follows and hands its events to all who do.
//!
//! One tailer for each namespace in use reads new events once, when a wake-up or the poll says that there are
//! some, and publishes them to all subscribers on this replica. A subscriber that is behind the tail, or that
//! falls behind because it does not read, reads the table by its own position until it meets the tail: it
//! holds a page at most, misses nothing, and slows nobody. Who waits for a decision is woken, and reads nothing here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::sync::{Notify, broadcast, watch};

use crate::{
    digest::RequestHash,
    error::Error,
    lasting::lasting,
    metrics::{Follows, Measures, Read},
    names::Namespace,
    store::{
        Store,
        events::{LoggedEvent, Position},
    },
};

mod behind;
pub mod cursor;
mod subscription;
mod waiting;

use behind::Behind;
pub use subscription::Subscription;
pub use waiting::Waiter;
use waiting::Waiting;

/// How long an event can stay unnoticed when its wake-up was lost.
const POLL: Duration = Duration::from_secs(1);

/// Events that the tail keeps for subscribers that are a little behind; one further behind reads the table.
const TAIL: usize = 1024;

/// Events that a tailer reads from the table at once, and a subscriber at most.
const PAGE: i64 = 512;

/// Events that a subscriber reads first. It reads twice as many each time, as long as it takes them: one that does not
/// has little in hand.
const FIRST_PAGE: i64 = 32;

/// Before the database is asked again after it failed.
const BACKOFF: Duration = Duration::from_millis(250);

/// Follows logs. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    store: Store,
    /// For the tailers, which do not wait behind subscribers.
    ahead: Store,
    tails: Arc<Mutex<HashMap<Namespace, Weak<Tail>>>>,
    counts: Follows,
}

/// The newest events of one log. It lives as long as somebody follows it.
struct Tail {
    news: broadcast::Sender<News>,
    /// How far it has published; none until the tailer has found the head.
    published: watch::Sender<Option<Position>>,
    waiting: Waiting,
    wake: Arc<Notify>,
}

/// What a tailer tells its subscribers.
#[derive(Clone)]
enum News {
    /// This happened.
    Event(Arc<LoggedEvent>),
    /// The log is not what it was: each must see for itself whether it still stands where it believes.
    LookAgain,
}

impl Drop for Tail {
    /// The tailer wakes, finds nobody, and ends.
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

impl Feed {
    /// A feed of this store; [`run`](Self::run) keeps it moving.
    pub fn new(store: Store) -> Self {
        Self { ahead: store.apart(), store, tails: Arc::default(), counts: Follows::default() }
    }

    /// What is followed, and how well.
    pub fn measures(&self) -> Measures {
        let feed = self.clone();
        let logs = ("approval_authority_feed_logs", "Logs that somebody here follows or waits on");
        let mut measures = self.counts.measures();
        measures.push(Box::new(Read::new([logs], move || [feed.in_use().len()])));
        measures
    }

    /// Keeps the feed moving until it is dropped: passes wake-ups on, in both directions, and polls.
    pub async fn run(&self) {
        tokio::join!(
            lasting("sending wake-ups", || self.store.send_wake_ups()),
            lasting("receiving wake-ups", || self.receive_wake_ups()),
            lasting("passing wake-ups on", || self.pass_wake_ups_on()),
            lasting("polling the logs", || self.poll())
        );
    }

    /// Follows a log after a position.
    pub fn subscribe(&self, namespace: &Namespace, after: Position) -> Subscription {
        Subscription::new(self.store.clone(), namespace.clone(), self.tail(namespace), after)
    }

    /// Waits for what is decided, from now on, of a request.
    pub fn wait_for(&self, namespace: &Namespace, request_hash: RequestHash) -> Waiter {
        Waiter::new(self.tail(namespace), request_hash)
    }

    /// The tail of a log, with its tailer.
    fn tail(&self, namespace: &Namespace) -> Arc<Tail> {
        let mut tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tail) = tails.get(namespace).and_then(Weak::upgrade) {
            return tail;
        }
        let tail = Arc::new(Tail {
            news: broadcast::channel(TAIL).0,
            published: watch::channel(None).0,
            waiting: Waiting::default(),
            wake: Arc::default(),
        });
        tails.insert(namespace.clone(), Arc::downgrade(&tail));
        let (store, counts) = (self.ahead.clone(), self.counts.clone());
        let (namespace, followed) = (namespace.clone(), Arc::downgrade(&tail));
        tokio::spawn(async move {
            let work = || follow(&store, &namespace, &followed, &counts);
            lasting("following a log", work).await;
        });
        tail
    }

    /// The tails in use; those that are not are forgotten.
    fn in_use(&self) -> Vec<(Namespace, Arc<Tail>)> {
        let mut tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
        tails.retain(|_, tail| tail.strong_count() > 0);
        tails.iter().filter_map(|(name, tail)| Some((name.clone(), tail.upgrade()?))).collect()
    }

    fn wake_all(&self) {
        self.in_use().iter().for_each(|(_, tail)| tail.wake.notify_one());
    }

    async fn receive_wake_ups(&self) {
        loop {
            let failure = self.store.receive_wake_ups(|| self.wake_all()).await;
            tracing::info!(%failure, "no wake-ups from other replicas; polling until they are back");
            tokio::time::sleep(BACKOFF).await;
        }
    }

    async fn pass_wake_ups_on(&self) {
        let mut wake_ups = self.store.announcer().listen();
        loop {
            match wake_ups.recv().await {
                Ok(namespace) => {
                    let tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(tail) = tails.get(&namespace).and_then(Weak::upgrade) {
                        tail.wake.notify_one();
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => self.wake_all(),
                // Not before the store is gone, and this holds the store.
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// One statement for all logs in use, always: a connection that looks healthy may deliver nothing.
    async fn poll(&self) {
        let mut behind = Behind::default();
        loop {
            tokio::time::sleep(POLL).await;
            let in_use: HashMap<Namespace, Arc<Tail>> = self.in_use().into_iter().collect();
            behind.retain(|namespace| in_use.contains_key(namespace));
            if in_use.is_empty() {
                self.counts.lag.set(0.0);
                continue;
            }
            let namespaces: Vec<Namespace> = in_use.keys().cloned().collect();
            match self.ahead.heads(&namespaces).await {
                Ok(heads) => {
                    for (namespace, head) in heads {
                        let Some(tail) = in_use.get(&namespace) else { continue };
                        let published = *tail.published.borrow();
                        if published != Some(head) {
                            tail.wake.notify_one();
                        }
                        behind.look(namespace, published, head);
                    }
                }
                Err(failure) => {
                    self.counts.failures.inc();
                    tracing::warn!(%failure, "the logs could not be polled");
                }
            }
            self.counts.lag.set(behind.longest().as_secs_f64());
        }
    }
}

/// The tailer: publishes what is new whenever it is woken, until nobody follows the log any more.
async fn follow(store: &Store, namespace: &Namespace, tail: &Weak<Tail>, counts: &Follows) {
    let Some(wake) = tail.upgrade().map(|tail| tail.wake.clone()) else {
        return;
    };
    loop {
        {
            let Some(tail) = tail.upgrade() else { return };
            if let Err(error) = publish(store, namespace, &tail).await {
                counts.failures.inc();
                tracing::info!(%error, %namespace, "the log cannot be read; trying again");
                tokio::time::sleep(BACKOFF).await;
                continue;
            }
        }
        wake.notified().await;
    }
}

async fn publish(store: &Store, namespace: &Namespace, tail: &Tail) -> Result<(), Error> {
    let published = *tail.published.borrow();
    let Some(mut published) = published else {
        let log = store.log(namespace).await?;
        tail.published.send_replace(Some(log.end()));
        // What happened up to here is read from the table, by subscribers, or asked of the ledger.
        tail.waiting.tell_all();
        return Ok(());
    };
    loop {
        let page = match store.events_after(namespace, published, PAGE).await {
            Ok(page) => page,
            Err(changed @ (Error::HistoryChanged | Error::CursorExpired)) => {
                // The tailer begins anew at the head; its subscribers find out what that means for them.
                tail.published.send_replace(None);
                let _ = tail.news.send(News::LookAgain);
                return Err(changed);
            }
            Err(error) => return Err(error),
        };
        let Some(last) = page.last() else { return Ok(()) };
        published = Position { revision: last.revision, tag: last.tag };
        for logged in page {
            tail.waiting.tell(&logged.event);
            // Nobody may be listening any more.
            let _ = tail.news.send(News::Event(Arc::new(logged)));
        }
        tail.published.send_replace(Some(published));
    }
}
