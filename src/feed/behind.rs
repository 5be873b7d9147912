//! Which tails are behind, and since when.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{names::Namespace, store::events::Position};

/// For each log whose tail was behind when it was looked at: how far the log had come then, and when that was. A tail that
/// has come as far since has kept up, however much has happened meanwhile.
#[derive(Default)]
pub(super) struct Behind(HashMap<Namespace, (i64, Instant)>);

impl Behind {
    /// Sees how far a tail has come, and its log.
    pub(super) fn look(
        &mut self,
        namespace: Namespace,
        published: Option<Position>,
        head: Position,
    ) {
        let reached = published.map_or(i64::MIN, |published| published.revision);
        if self.0.get(&namespace).is_some_and(|(goal, _)| reached >= *goal) {
            self.0.remove(&namespace);
        }
        if published == Some(head) {
            self.0.remove(&namespace);
        } else {
            self.0.entry(namespace).or_insert_with(|| (head.revision, Instant::now()));
        }
    }

    /// Forgets logs that nobody follows any more.
    pub(super) fn retain(&mut self, followed: impl Fn(&Namespace) -> bool) {
        self.0.retain(|namespace, _| followed(namespace));
    }

    /// For how long the one that is furthest behind has been so.
    pub(super) fn longest(&self) -> Duration {
        self.0.values().map(|(_, since)| since.elapsed()).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_behind_for_as_long_as_it_has_not_come_to_where_the_log_was() {
        let at = |revision| Position { revision, tag: revision };
        let log = Namespace::default_namespace;
        let since = |behind: &Behind| behind.0.get(&log()).map(|(_, since)| *since);
        let mut behind = Behind::default();
        behind.look(log(), Some(at(3)), at(3));
        assert_eq!(since(&behind), None, "it is at the end");
        behind.look(log(), Some(at(3)), at(5));
        let first = since(&behind).expect("behind");
        behind.look(log(), Some(at(4)), at(9));
        assert_eq!(since(&behind), Some(first), "it has not come to 5");
        behind.look(log(), Some(at(5)), at(12));
        assert!(since(&behind).expect("behind again") > first, "it keeps up with a busy log");
        behind.look(log(), None, at(12));
        assert!(since(&behind).is_some(), "it has yet to begin");
        behind.look(log(), Some(at(1)), at(1));
        assert_eq!(since(&behind), None, "the log is another one");
        behind.look(log(), Some(at(1)), at(2));
        behind.retain(|_| false);
        assert_eq!(behind.longest(), Duration::ZERO);
    }
}
