//! How many streams a server keeps open: in all, and for each principal.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{error::Error, names::Principal};

/// How much one server takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams of `WatchApprovals` at once.
    pub watchers: usize,
    /// Of those, one principal's.
    pub watchers_per_principal: usize,
    /// How long a message of a stream may wait to be taken.
    pub unread: Duration,
}

/// Places for streams.
#[derive(Clone)]
pub(super) struct Places {
    limits: Limits,
    /// By principal; who has none is not here.
    taken: Arc<Mutex<HashMap<Principal, usize>>>,
}

impl Places {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, taken: Arc::default() }
    }

    /// A place for one more stream of a principal's. [`Error::TooManyStreams`] when there is none.
    pub(super) fn take(&self, principal: &Principal) -> Result<Place, Error> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let own = taken.get(principal).copied().unwrap_or_default();
        if all >= self.limits.watchers || own >= self.limits.watchers_per_principal {
            return Err(Error::TooManyStreams);
        }
        taken.insert(principal.clone(), own + 1);
        Ok(Place { taken: self.taken.clone(), principal: principal.clone() })
    }
}

/// Given up with the stream.
pub(super) struct Place {
    taken: Arc<Mutex<HashMap<Principal, usize>>>,
    principal: Principal,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.principal) {
            Some(own) if *own > 1 => *own -= 1,
            Some(_) | None => {
                taken.remove(&self.principal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_for_each_and_for_all_and_given_up() {
        let places = Places::new(Limits {
            watchers: 3,
            watchers_per_principal: 2,
            unread: Duration::from_secs(60),
        });
        let [alice, bob] = ["alice", "bob"].map(Principal::example);
        let first = places.take(&alice).expect("a place");
        let _second = places.take(&alice).expect("a place");
        assert_eq!(places.take(&alice).err(), Some(Error::TooManyStreams));
        let _third = places.take(&bob).expect("a place");
        assert_eq!(places.take(&bob).err(), Some(Error::TooManyStreams), "three in all");
        drop(first);
        drop(places.take(&bob).expect("a place"));
        places.take(&alice).expect("a place");
    }
}
