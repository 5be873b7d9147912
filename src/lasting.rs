//! Work that lasts as long as the server does: the keeper's, the feed's. A task that panics ends, nobody waits for it, and
//! what it does would be left undone for as long as the process runs.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;

/// Between a panic and the new beginning.
const PAUSE: Duration = Duration::from_secs(1);

/// Does work, and begins it anew when it panics, which is a fault of ours. Ends when the work does.
///
/// What the work keeps between its turns must be good after a panic: here it is read from the database again.
pub async fn lasting<Work: Future>(name: &str, begin: impl Fn() -> Work) -> Work::Output {
    loop {
        match AssertUnwindSafe(begin()).catch_unwind().await {
            Ok(done) => return done,
            // The panic has been printed, with its place, by the process's hook.
            Err(_) => tracing::error!(name, "work panicked and begins anew"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_panics_begins_anew_until_it_is_done() {
        let turns = Cell::new(0);
        let work = async || {
            tokio::task::yield_now().await;
            turns.set(turns.get() + 1);
            assert!(turns.get() > 2, "a fault");
            turns.get()
        };
        assert_eq!(lasting("a test", work).await, 3);
    }
}
