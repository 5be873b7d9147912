//! Calls to the gate that wait for a decision.

use tokio::time::{Instant, sleep_until};

use crate::{
    approval::gate::{Gate, Require},
    error::Error,
    feed::Feed,
    ledger::Ledger,
};

/// Asks the gate and, where the answer is that people are being asked, waits: until something is decided, and then
/// asks again, if it is `still_allowed`; until `until`; or until it is `released`, be it that the server drains.
///
/// What the feed says only wakes: every answer is the ledger's.
pub async fn require<Allowed>(
    ledger: &Ledger,
    feed: &Feed,
    call: Require,
    until: Instant,
    mut still_allowed: impl FnMut() -> Allowed,
    released: impl Future<Output = ()>,
) -> Result<Gate, Error>
where
    Allowed: Future<Output = Result<(), Error>>,
{
    if until <= Instant::now() {
        return ledger.require(call).await;
    }
    // Before the first look: what is decided after it is heard.
    let mut waiter = feed.wait_for(&call.namespace, call.operation.request_hash);
    tokio::pin!(released);
    loop {
        let gate = ledger.require(call.clone()).await?;
        match gate {
            Gate::Approved { .. } | Gate::Denied { .. } => return Ok(gate),
            Gate::Pending(_) => {}
        }
        tokio::select! {
            () = waiter.wake() => still_allowed().await?,
            () = sleep_until(until) => return Ok(gate),
            () = &mut released => return Ok(gate),
        }
    }
}
