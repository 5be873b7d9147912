//! Natural batching: while a batch is in flight what arrives waits, and makes the next one. No timer.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use crate::names::Namespace;

/// What waits in each namespace. A namespace is here exactly while somebody works on it, so one that is not
/// in use costs nothing.
pub(super) struct Lane<J> {
    queues: Mutex<HashMap<Namespace, Vec<J>>>,
}

impl<J> Default for Lane<J> {
    fn default() -> Self {
        Self { queues: Mutex::default() }
    }
}

impl<J> Lane<J> {
    /// Adds jobs. Whoever gets `true` must see to it that they are taken until there are none.
    #[must_use]
    pub(super) fn push(&self, namespace: &Namespace, jobs: Vec<J>) -> bool {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        match queues.get_mut(namespace) {
            Some(queue) => {
                queue.extend(jobs);
                false
            }
            None => {
                queues.insert(namespace.clone(), jobs);
                true
            }
        }
    }

    /// Takes all that waits. None: nothing does, and the taker is released.
    pub(super) fn take(&self, namespace: &Namespace) -> Option<Vec<J>> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        match queues.get_mut(namespace) {
            Some(queue) if !queue.is_empty() => Some(std::mem::take(queue)),
            Some(_) | None => {
                queues.remove(namespace);
                None
            }
        }
    }

    /// Puts back, in front of what has come since, what the taker leaves for its next round.
    pub(super) fn put_back(&self, namespace: &Namespace, mut jobs: Vec<J>) {
        if jobs.is_empty() {
            return;
        }
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.entry(namespace.clone()).or_default();
        jobs.append(queue);
        *queue = jobs;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_come_works_and_the_rest_queue_up() {
        let lane = Lane::default();
        let (a, b) = (Namespace::parse("a").expect("ok"), Namespace::parse("b").expect("ok"));
        assert!(lane.push(&a, vec![1]));
        assert!(!lane.push(&a, vec![2]));
        assert!(lane.push(&b, vec![9]), "each namespace has a worker of its own");
        assert_eq!(lane.take(&a), Some(vec![1, 2]));
        assert!(!lane.push(&a, vec![4]), "the worker is still at it");
        lane.put_back(&a, vec![3]);
        assert_eq!(lane.take(&a), Some(vec![3, 4]));
        assert_eq!(lane.take(&a), None);
        assert!(lane.push(&a, vec![5]), "the worker was released");
    }
}
