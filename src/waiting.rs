//! Calls to the gate that wait for a decision.

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    approval::{
        Terms,
        gate::{Gate, Require},
    },
    error::Error,
    feed::Feed,
    ledger::Ledger,
};

/// Asks the gate and, where the answer is that people are being asked, waits: until something is decided, and then
/// asks again, on the terms that are `renewed`, if any still are; until what is waited for is withdrawn or revoked; until
/// `until`; or until it is `released`, be it that the server drains. For a caller that is `gone` nothing is used.
///
/// What the feed says only wakes: every answer is the ledger's.
pub async fn require<Renewed>(
    ledger: &Ledger,
    feed: &Feed,
    call: Require,
    until: Instant,
    renewed: impl FnMut() -> Renewed,
    released: impl Future<Output = ()>,
    gone: &CancellationToken,
) -> Result<Gate, Error>
where
    Renewed: Future<Output = Result<Option<Terms>, Error>>,
{
    if until <= Instant::now() {
        return ledger.require_unless(call, gone).await;
    }
    // Boxed: a call that does not wait need not bring the room for it.
    Box::pin(wait(ledger, feed, call, until, renewed, released, gone)).await
}

async fn wait<Renewed>(
    ledger: &Ledger,
    feed: &Feed,
    mut call: Require,
    until: Instant,
    mut renewed: impl FnMut() -> Renewed,
    released: impl Future<Output = ()>,
    gone: &CancellationToken,
) -> Result<Gate, Error>
where
    Renewed: Future<Output = Result<Option<Terms>, Error>>,
{
    // Before the first look: what is decided after it is heard.
    let mut waiter = feed.wait_for(&call.namespace, call.operation.request_hash);
    tokio::pin!(released);
    loop {
        let gate = ledger.require_unless(call.clone(), gone).await?;
        let joined = match &gate {
            Gate::Approved { .. } | Gate::Denied { .. } => return Ok(gate),
            Gate::Pending(approval) => approval.id(),
        };
        tokio::select! {
            biased;
            () = &mut released => return Ok(gate),
            () = waiter.wake() => {
                // To ask anew would bring before people at once what somebody has just taken back from them.
                if waiter.was_taken_back(joined) {
                    return Ok(gate);
                }
                match renewed().await? {
                    Some(terms) => call.terms = terms,
                    // The policy asks for nothing any more; whoever calls again is told so.
                    None => return Ok(gate),
                }
            }
            () = sleep_until(until) => return Ok(gate),
        }
    }
}
