//! Who waits for a decision here, by what they asked for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use super::Tail;
use crate::{
    approval::{Event, EventKind},
    digest::RequestHash,
};

/// Those that wait in one namespace. A request is known by its hash, not by its approval: a denial of the same
/// request answers whoever asked.
#[derive(Default)]
pub(super) struct Waiting {
    by_request: Mutex<HashMap<RequestHash, watch::Sender<()>>>,
}

impl Waiting {
    /// Wakes those whom an event may let through, or refuse.
    pub(super) fn tell(&self, event: &Event) {
        if !settles(event.kind) {
            return;
        }
        let by_request = self.by_request.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = by_request.get(&event.approval.request.operation.request_hash) {
            waiting.send_replace(());
        }
    }

    /// Wakes everybody: something may have happened unseen.
    pub(super) fn tell_all(&self) {
        let by_request = self.by_request.lock().unwrap_or_else(PoisonError::into_inner);
        by_request.values().for_each(|waiting| {
            waiting.send_replace(());
        });
    }
}

/// Whether an event can change what a call to the gate that joined a pending approval is told.
fn settles(kind: EventKind) -> bool {
    match kind {
        EventKind::Approved
        | EventKind::Denied
        | EventKind::Expired
        | EventKind::Withdrawn
        | EventKind::Revoked => true,
        EventKind::Requested
        | EventKind::Escalated
        | EventKind::Reviewed
        | EventKind::Consumed
        | EventKind::ResultReported => false,
    }
}

/// One that waits. It holds no connection and asks the database nothing.
pub struct Waiter {
    /// Keeps the tailer alive.
    tail: Arc<Tail>,
    request_hash: RequestHash,
    /// Taken when this is dropped.
    woken: Option<watch::Receiver<()>>,
}

impl Waiter {
    pub(super) fn new(tail: Arc<Tail>, request_hash: RequestHash) -> Self {
        let woken = {
            let mut by_request =
                tail.waiting.by_request.lock().unwrap_or_else(PoisonError::into_inner);
            by_request.entry(request_hash).or_insert_with(|| watch::channel(()).0).subscribe()
        };
        Self { tail, request_hash, woken: Some(woken) }
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
