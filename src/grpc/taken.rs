//! Answers that have been given and not been taken yet, by connection. When one is not let go of in time, its connection is
//! closed: nothing less makes the transport forget an answer that its peer does not take.
//!
//! One task sees to all of a connection, and goes when it finds none: a task and a timer for each answer would be made and
//! undone with every call.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::connections::Line;

/// Of one connection.
#[derive(Debug, Default)]
pub(super) struct Untaken(Mutex<Answers>);

#[derive(Debug, Default)]
struct Answers {
    /// Counts up, and tells them apart.
    given: u64,
    /// Until when each has to be taken, in the order in which they were given.
    due: BTreeMap<u64, Instant>,
    /// Whether a task sees to them.
    watched: bool,
}

impl Untaken {
    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the first of them is due. None: there are none, and nobody sees to them any more.
    fn first_due(&self) -> Option<Instant> {
        let mut answers = self.answers();
        let first = answers.due.values().min().copied();
        answers.watched = first.is_some();
        first
    }
}

/// Held with an answer, and let go of with it.
#[derive(Debug)]
pub(super) struct Taken {
    line: Arc<Line>,
    number: u64,
}

impl Taken {
    /// An answer that has to be taken from now on.
    pub(super) fn within(patience: Duration, line: Arc<Line>) -> Self {
        let mut answers = line.untaken().answers();
        answers.given += 1;
        let number = answers.given;
        answers.due.insert(number, Instant::now() + patience);
        let is_watched = mem::replace(&mut answers.watched, true);
        drop(answers);
        if !is_watched {
            tokio::spawn(watch(line.clone()));
        }
        Self { line, number }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.line.untaken().answers().due.remove(&self.number);
    }
}

async fn watch(line: Arc<Line>) {
    while let Some(due) = line.untaken().first_due() {
        if due <= Instant::now() {
            tracing::info!("closed a connection on which an answer was not taken");
            line.close();
            return;
        }
        tokio::select! {
            () = line.closing().cancelled() => return,
            () = sleep_until(due) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::connections::{Connections, Seat},
        *,
    };

    const PATIENCE: Duration = Duration::from_secs(60);

    fn watchers() -> usize {
        tokio::runtime::Handle::current().metrics().num_alive_tasks()
    }

    /// Gives the task that sees to answers its turn, in virtual time.
    async fn pass(time: Duration) {
        tokio::time::sleep(time).await;
        tokio::task::yield_now().await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_that_is_not_taken_in_time_closes_its_connection() {
        let connections = Connections::new(2);
        let [reads, stalls] = [(); 2].map(|()| connections.seat().expect("room"));
        let answer = |seat: &Seat| Taken::within(PATIENCE, seat.line().clone());
        let forgotten = answer(&stalls);
        pass(PATIENCE / 2).await;
        let (taken, _later) = (answer(&reads), answer(&stalls));
        drop(answer(&stalls));
        pass(PATIENCE / 2 - Duration::from_millis(1)).await;
        assert!(!stalls.line().closing().is_cancelled());
        pass(Duration::from_millis(2)).await;
        assert!(stalls.line().closing().is_cancelled(), "whatever was taken or given since");
        drop(taken);
        pass(PATIENCE).await;
        assert!(!reads.line().closing().is_cancelled());
        drop(forgotten);
    }

    #[tokio::test(start_paused = true)]
    async fn one_task_sees_to_a_connection_and_only_while_it_has_to() {
        let connections = Connections::new(1);
        let seat = connections.seat().expect("room");
        let answer = || Taken::within(PATIENCE, seat.line().clone());
        let answers: Vec<Taken> = (0..100).map(|_| answer()).collect();
        assert_eq!(watchers(), 1);
        drop(answers);
        pass(PATIENCE).await;
        assert_eq!(watchers(), 0, "all have been taken");
        let forgotten = answer();
        assert_eq!(watchers(), 1);
        pass(PATIENCE).await;
        assert!(seat.line().closing().is_cancelled());
        drop(forgotten);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_waits_for_a_connection_that_has_gone() {
        let connections = Connections::new(1);
        let seat = connections.seat().expect("room");
        let _answer = Taken::within(PATIENCE, seat.line().clone());
        tokio::task::yield_now().await;
        drop(seat);
        pass(Duration::from_millis(1)).await;
        assert_eq!(watchers(), 0);
    }
}
