//! Who waits for a decision here, by what they asked for.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;
use uuid::Uuid;

use super::Tail;
use crate::{
    approval::{Event, EventKind},
    digest::RequestHash,
};

/// Those that wait in one namespace. A request is known by its hash, not by its approval: a denial of the same
/// request answers whoever asked.
#[derive(Default)]
pub(super) struct Waiting {
    by_request: Mutex<HashMap<RequestHash, watch::Sender<TakenBack>>>,
}

/// Approvals of one request that were taken back while somebody waited for it, the newest last.
type TakenBack = VecDeque<Uuid>;

/// So many of them are remembered. Whoever waits is woken by each, and asks about its own.
const TAKEN_BACK: usize = 64;

/// What an event can change for a call to the gate that joined a pending approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    /// It may be let through or refused, or has to ask anew.
    Settled,
    /// The request was withdrawn, or its approval revoked.
    TakenBack,
}

impl Waiting {
    /// Wakes those for whom an event changes something.
    pub(super) fn tell(&self, event: &Event) {
        let change = change(event.kind);
        if change == Change::Nothing {
            return;
        }
        let by_request = self.by_request.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = by_request.get(&event.approval.request.operation.request_hash) {
            waiting.send_modify(|taken_back| {
                if change == Change::TakenBack {
                    taken_back.push_back(event.approval.id());
                    if taken_back.len() > TAKEN_BACK {
                        taken_back.pop_front();
                    }
                }
            });
        }
    }

    /// Wakes everybody: something may have happened unseen.
    pub(super) fn tell_all(&self) {
        let by_request = self.by_request.lock().unwrap_or_else(PoisonError::into_inner);
        by_request.values().for_each(|waiting| waiting.send_modify(|_| ()));
    }
}

fn change(kind: EventKind) -> Change {
    match kind {
        EventKind::Approved | EventKind::Denied | EventKind::Expired => Change::Settled,
        EventKind::Withdrawn | EventKind::Revoked => Change::TakenBack,
        EventKind::Requested
        | EventKind::Escalated
        | EventKind::Reviewed
        | EventKind::Consumed
        | EventKind::ResultReported => Change::Nothing,
    }
}

/// One that waits. It holds no connection and asks the database nothing.
pub struct Waiter {
    /// Keeps the tailer alive.
    tail: Arc<Tail>,
    request_hash: RequestHash,
    /// Taken when this is dropped.
    woken: Option<watch::Receiver<TakenBack>>,
}

impl Waiter {
    pub(super) fn new(tail: Arc<Tail>, request_hash: RequestHash) -> Self {
        let woken = {
            let mut by_request =
                tail.waiting.by_request.lock().unwrap_or_else(PoisonError::into_inner);
            by_request
                .entry(request_hash)
                .or_insert_with(|| watch::Sender::new(TakenBack::new()))
                .subscribe()
        };
        Self { tail, request_hash, woken: Some(woken) }
    }

    /// Whether an approval of the request was withdrawn or revoked since somebody began to wait for it.
    pub fn was_taken_back(&self, approval: Uuid) -> bool {
        self.woken.as_ref().is_some_and(|woken| woken.borrow().contains(&approval))
    }

    /// Returns once it is worth asking again: something was settled since this waiter was made, or since this
    /// returned last.
    pub async fn wake(&mut self) {
        let changed = match &mut self.woken {
            Some(woken) => woken.changed().await.is_ok(),
            None => false,
        };
        if !changed {
            // The sender is removed by the last that waits only.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut by_request =
            self.tail.waiting.by_request.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that of two that go at once the second sees that it is the last.
        drop(self.woken.take());
        let waiting = by_request.get(&self.request_hash);
        if waiting.is_some_and(|sender| sender.receiver_count() == 0) {
            by_request.remove(&self.request_hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast;

    use super::*;

    #[test]
    fn nothing_is_left_of_those_that_have_gone() {
        let tail = Arc::new(Tail {
            news: broadcast::channel(1).0,
            published: watch::channel(None).0,
            waiting: Waiting::default(),
            wake: Arc::default(),
        });
        let known = |tail: &Tail| tail.waiting.by_request.lock().expect("unharmed").len();
        let hash = RequestHash::from_bytes(&[1; 32]).expect("32 bytes");
        let (one, two) = (Waiter::new(tail.clone(), hash), Waiter::new(tail.clone(), hash));
        assert_eq!(known(&tail), 1);
        drop(one);
        assert_eq!(known(&tail), 1, "the other goes on waiting");
        drop(two);
        assert_eq!(known(&tail), 0);
    }
}
