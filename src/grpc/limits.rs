//! How much a server takes on, and who has how much of it: calls in progress, calls that wait for people, streams; in all, and
//! for each principal, so that nobody takes all of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    error::Error,
    metrics::{Measures, Read, Refusals},
    names::Principal,
};

/// How much one server takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Calls in progress at once, but for those that wait or watch.
    pub calls: usize,
    /// Of those, one principal's.
    pub calls_per_principal: usize,
    /// Calls to the gate at once that wait for a decision.
    pub waiters: usize,
    /// Of those, one principal's.
    pub waiters_per_principal: usize,
    /// Streams of `WatchApprovals` at once.
    pub watchers: usize,
    /// Of those, one principal's.
    pub watchers_per_principal: usize,
    /// How long an answer, or a message of a stream, may wait to be taken.
    pub unread: Duration,
    /// How long nothing may come from a peer before it is asked whether it is still there. It has two thirds of that to answer.
    pub silent: Duration,
}

/// What a call does, as far as its place is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// It is being carried out, and costs work as long as it is.
    Calls,
    /// It waits for people, and costs memory.
    Waits,
    /// It is a stream.
    Watches,
}

impl Limits {
    /// How many may do this at once: in all, and of one principal.
    fn of(&self, part: Part) -> (usize, usize) {
        match part {
            Part::Calls => (self.calls, self.calls_per_principal),
            Part::Waits => (self.waiters, self.waiters_per_principal),
            Part::Watches => (self.watchers, self.watchers_per_principal),
        }
    }
}

/// Places for calls. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Places {
    limits: Limits,
    taken: Arc<Mutex<Taken>>,
    refused: Refusals,
}

#[derive(Debug, Default)]
struct Taken {
    all: Counts,
    /// By principal; who has none is not here.
    each: HashMap<Principal, Counts>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    calls: usize,
    waiters: usize,
    watchers: usize,
}

impl Counts {
    fn of(&mut self, part: Part) -> &mut usize {
        match part {
            Part::Calls => &mut self.calls,
            Part::Waits => &mut self.waiters,
            Part::Watches => &mut self.watchers,
        }
    }
}

impl Places {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, taken: Arc::default(), refused: Refusals::default() }
    }

    /// A place for a call of a principal's that begins.
    pub(super) fn take(&self, principal: &Principal) -> Result<Arc<Place>, Error> {
        self.count(principal, Part::Calls)?;
        let part = Mutex::new(Some(Part::Calls));
        Ok(Arc::new(Place { places: self.clone(), principal: principal.clone(), part }))
    }

    fn count(&self, principal: &Principal, part: Part) -> Result<(), Error> {
        let (most, most_each) = self.limits.of(part);
        let mut taken = self.taken();
        let own = taken.each.get(principal).copied().unwrap_or_default();
        if *own.clone().of(part) >= most_each {
            self.refused.one_principals();
            return Err(Error::TooManyCalls);
        }
        if *taken.all.of(part) >= most {
            self.refused.everybodys();
            return Err(Error::Overloaded);
        }
        *taken.all.of(part) += 1;
        *taken.each.entry(principal.clone()).or_default().of(part) += 1;
        Ok(())
    }

    fn give_up(&self, principal: &Principal, part: Part) {
        let mut taken = self.taken();
        *taken.all.of(part) -= 1;
        if let Some(own) = taken.each.get_mut(principal) {
            *own.of(part) -= 1;
            if *own == Counts::default() {
                taken.each.remove(principal);
            }
        }
    }

    /// Who is here, and for whom there was no place.
    pub(super) fn measures(&self) -> Measures {
        let (here, limits) = (self.clone(), self.limits);
        let kinds = ["call", "waiter", "subscriber"];
        let read = move || {
            let Counts { calls, waiters, watchers } = here.taken().all;
            [calls, waiters, watchers]
        };
        let name = "approval_authority_calls_in_progress";
        let help = "Calls in progress, calls that wait for a decision, and streams of subscribers";
        let in_progress = Read::labelled(name, help, "kind", kinds, read);
        let name = "approval_authority_calls_limit";
        let help = "How many of these there may be at once";
        let read = move || [limits.calls, limits.waiters, limits.watchers];
        let most = Read::labelled(name, help, "kind", kinds, read);
        let mut measures = self.refused.measures();
        measures.extend([Box::new(in_progress) as _, Box::new(most) as _]);
        measures
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call's place. It is given up when nobody holds it any more: neither the work nor the answer on its way.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    principal: Principal,
    /// None once it has been given up.
    part: Mutex<Option<Part>>,
}

impl Place {
    /// Exchanges it for one among those that wait, or watch.
    pub(super) fn turn(&self, part: Part) -> Result<(), Error> {
        self.places.count(&self.principal, part)?;
        let before = self.part().replace(part);
        before.inspect(|before| self.places.give_up(&self.principal, *before));
        Ok(())
    }

    /// Whether the call ends with its answer, as all do but streams.
    pub(super) fn ends_with_its_answer(&self) -> bool {
        matches!(*self.part(), Some(Part::Calls | Part::Waits))
    }

    /// Gives it up before everybody has let go of it.
    pub(super) fn leave(&self) {
        let before = self.part().take();
        before.inspect(|before| self.places.give_up(&self.principal, *before));
    }

    fn part(&self) -> MutexGuard<'_, Option<Part>> {
        self.part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
impl Place {
    /// Any place.
    pub(super) fn example() -> Arc<Self> {
        tests::places().take(&Principal::example("alice")).expect("a place")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn places() -> Places {
        Places::new(Limits {
            connections: 1,
            calls: 3,
            calls_per_principal: 2,
            waiters: 1,
            waiters_per_principal: 1,
            watchers: 2,
            watchers_per_principal: 1,
            unread: Duration::from_secs(60),
            silent: Duration::from_secs(30),
        })
    }

    #[test]
    fn places_are_counted_for_each_and_for_all_and_given_up() {
        let places = places();
        let [alice, bob] = ["alice", "bob"].map(Principal::example);
        let first = places.take(&alice).expect("a place");
        let _second = places.take(&alice).expect("a place");
        assert_eq!(places.take(&alice).err(), Some(Error::TooManyCalls));
        let _third = places.take(&bob).expect("a place");
        assert_eq!(places.take(&bob).err(), Some(Error::Overloaded), "three in all");
        drop(first);
        drop(places.take(&bob).expect("a place"));
        places.take(&alice).expect("a place");
    }

    #[test]
    fn a_call_that_waits_or_watches_is_no_longer_counted_among_the_others() {
        let places = places();
        let [alice, bob] = ["alice", "bob"].map(Principal::example);
        let take = |principal| places.take(principal).expect("a place");
        let [waits, watches, refused] = [(); 3].map(|()| {
            let place = take(&alice);
            place.turn(Part::Waits).or_else(|_| place.turn(Part::Watches)).map(|()| place)
        });
        assert_eq!(refused.err(), Some(Error::TooManyCalls), "one of each is hers");
        let (waits, watches) = (waits.expect("waits"), watches.expect("watches"));
        assert!(waits.ends_with_its_answer() && !watches.ends_with_its_answer());
        assert_eq!(take(&bob).turn(Part::Waits), Err(Error::Overloaded), "one waits");
        let _calls = [take(&alice), take(&alice), take(&bob)];
        watches.leave();
        drop((waits, watches));
        take_all_again(&places, &bob);
    }

    fn take_all_again(places: &Places, bob: &Principal) {
        let place = places.take(bob).err();
        assert_eq!(place, Some(Error::Overloaded), "the calls are still there");
        let taken = places.taken();
        assert_eq!(taken.all, Counts { calls: 3, waiters: 0, watchers: 0 });
        assert_eq!(taken.each.len(), 2);
    }

    #[test]
    fn nothing_is_left_of_those_that_have_gone() {
        let places = places();
        drop(places.take(&Principal::example("alice")).expect("a place"));
        assert!(places.taken().each.is_empty());
    }
}
