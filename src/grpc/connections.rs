//! The connections that are open, and who gives way when there are too many.
//!
//! When the bound is reached, room for one more is made by closing the least useful one: of those on which no call is in progress, the
//! one that has been so for longest, and first of all one on which nobody has shown a credential. Who opens connections and says
//! nothing crowds out others like themselves, and neither those who call nor a health check that comes, asks and goes. When a call is in
//! progress on each, the one more is closed: its caller learns it at once and goes elsewhere.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio_util::sync::CancellationToken;

use super::taken::Untaken;

/// Calls at once on one connection to what is open to everybody: some of them are streams, and who makes them is not known.
pub(super) const OPEN_CALLS: usize = 16;

/// The connections of a server.
#[derive(Debug)]
pub(super) struct Connections {
    most: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    count: usize,
    /// Counts up, and tells which has been idle for longer.
    turn: u64,
    /// Those without a call in progress, in the order in which they give way.
    idle: BTreeMap<Rank, CancellationToken>,
}

/// Those on which nobody has been let in come first, and of two the one that has been idle for longer.
type Rank = (bool, u64);

impl Connections {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default() })
    }

    /// A seat for one more connection, if need be another's; none when all are in use.
    pub(super) fn seat(self: &Arc<Self>) -> Option<Seat> {
        let closing = CancellationToken::new();
        let mut open = self.open();
        if open.count >= self.most && !open.give_way() {
            return None;
        }
        open.count += 1;
        let rank = open.rest(false, &closing);
        let used = Mutex::new(Used { calls: 0, known: false, rank });
        let connections = self.clone();
        let (open_calls, untaken) = (AtomicUsize::new(0), Untaken::default());
        Some(Seat(Arc::new(Line { connections, closing, used, open_calls, untaken })))
    }

    /// Closes the least useful connection: what they are made of has run out.
    pub(super) fn make_room(&self) {
        self.open().give_way();
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn give_way(&mut self) -> bool {
        let first = self.idle.pop_first();
        first.inspect(|(_, closing)| closing.cancel()).is_some()
    }

    fn rest(&mut self, known: bool, closing: &CancellationToken) -> Rank {
        self.turn += 1;
        let rank = (known, self.turn);
        self.idle.insert(rank, closing.clone());
        rank
    }
}

/// A connection among the others. It is given up with the socket.
#[derive(Debug)]
pub(super) struct Seat(Arc<Line>);

impl Seat {
    pub(super) fn line(&self) -> &Arc<Line> {
        &self.0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Calls on it may still be ending: it does not come back for them.
        self.0.closing.cancel();
        let used = self.0.used();
        let mut open = self.0.connections.open();
        open.idle.remove(&used.rank);
        open.count -= 1;
    }
}

/// A connection as its calls see it.
#[derive(Debug)]
pub(super) struct Line {
    connections: Arc<Connections>,
    closing: CancellationToken,
    used: Mutex<Used>,
    open_calls: AtomicUsize,
    untaken: Untaken,
}

#[derive(Debug)]
struct Used {
    calls: usize,
    /// Whether somebody has been let in on it.
    known: bool,
    /// Where it stood when it was idle last.
    rank: Rank,
}

impl Line {
    /// Cancelled when the connection has to be closed.
    pub(super) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Answers that its peer has to take.
    pub(super) fn untaken(&self) -> &Untaken {
        &self.untaken
    }

    /// Closes it, whatever goes on on it.
    pub(super) fn close(&self) {
        self.closing.cancel();
    }

    /// Somebody has been let in: the connection stays at least until this is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        let mut used = self.used();
        if used.calls == 0 {
            self.connections.open().idle.remove(&used.rank);
        }
        used.calls += 1;
        used.known = true;
        Busy(self.clone())
    }

    /// One more call to what is open to everybody, which counts for so many; none if there are enough of them on this connection.
    pub(super) fn open_call(self: &Arc<Self>, share: usize) -> Option<OpenCall> {
        let call = OpenCall { line: self.clone(), share };
        let others = self.open_calls.fetch_add(share, Ordering::Relaxed);
        (others + share <= OPEN_CALLS).then_some(call)
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call in progress.
#[derive(Debug)]
pub(super) struct Busy(Arc<Line>);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut used = self.0.used();
        used.calls -= 1;
        if used.calls == 0 && !self.0.closing.is_cancelled() {
            used.rank = self.0.connections.open().rest(used.known, &self.0.closing);
        }
    }
}

/// A call in progress to what is open to everybody.
#[derive(Debug)]
pub(super) struct OpenCall {
    line: Arc<Line>,
    share: usize,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.line.open_calls.fetch_sub(self.share, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_closed(seat: &Seat) -> bool {
        seat.line().closing().is_cancelled()
    }

    #[test]
    fn who_has_been_silent_for_longest_gives_way_and_who_calls_does_not() {
        let connections = Connections::new(4);
        let [calls, called, silent, young] =
            [(); 4].map(|()| connections.seat().expect("room for four"));
        let _call = calls.line().busy();
        drop(called.line().busy());
        let mut callers = Vec::new();
        for (gives_way, why) in
            [(&silent, "nobody has been let in, for longest"), (&young, "nobody has been let in")]
        {
            assert!(!is_closed(gives_way));
            // What comes is at once somebody's who calls.
            let seat = connections.seat().expect("room is made");
            callers.push((seat.line().busy(), seat));
            assert!(is_closed(gives_way), "{why}");
        }
        assert!(!is_closed(&called), "somebody has been let in on it");
        let last = connections.seat().expect("room is made");
        assert!(is_closed(&called));
        let _call_too = last.line().busy();
        assert!(connections.seat().is_none(), "everybody calls");
        assert!(!is_closed(&calls) && !is_closed(&last));
    }

    #[test]
    fn nothing_is_left_of_those_that_have_gone() {
        let connections = Connections::new(1);
        let seat = connections.seat().expect("room");
        let (busy, busy_too) = (seat.line().busy(), seat.line().busy());
        drop(busy);
        assert!(connections.open().idle.is_empty(), "it is still in use");
        drop(seat);
        drop(busy_too);
        let left = || {
            let open = connections.open();
            (open.count, open.idle.len())
        };
        assert_eq!(left(), (0, 0));
        drop(connections.seat().expect("room"));
        assert_eq!(left(), (0, 0));
    }

    #[test]
    fn calls_of_nobody_known_are_few_on_each_connection() {
        let connections = Connections::new(2);
        let [one, other] = [(); 2].map(|()| connections.seat().expect("room"));
        let mut calls: Vec<OpenCall> =
            (0..OPEN_CALLS).map(|_| one.line().open_call(1).expect("a few")).collect();
        assert!(one.line().open_call(1).is_none());
        assert!(one.line().open_call(1).is_none(), "a refusal takes no place");
        assert!(other.line().open_call(1).is_some());
        calls.pop();
        assert!(one.line().open_call(1).is_some());
    }
}
