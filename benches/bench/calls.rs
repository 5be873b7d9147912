//! What is measured of the service, by callers in a place.

use approval_authority::proto::Outcome;
use futures_util::{StreamExt, stream};

use super::{
    Bench, Caller,
    measure::{Figures, measure},
    place::Place,
};

/// What is pending while callers join it.
const PENDING: usize = 64;

/// A new operation, held.
pub async fn create(what: &str, place: Place, callers: Vec<Caller>) -> Figures {
    measure(what, callers, usize::MAX, move |caller, number| {
        let operation = place.operation(number);
        async move { assert_eq!(caller.ask_about(&operation).await.outcome(), Outcome::Pending) }
    })
    .await
}

/// What is pending already.
pub async fn join(what: &str, place: Place, callers: Vec<Caller>) -> Figures {
    for number in 0..PENDING {
        callers[0].ask_about(&place.operation(number)).await;
    }
    measure(what, callers, usize::MAX, move |caller, number| {
        let operation = place.operation(number % PENDING);
        async move { assert_eq!(caller.ask_about(&operation).await.outcome(), Outcome::Pending) }
    })
    .await
}

/// What has been approved before: so many, which are more than callers get through.
pub async fn consume(
    bench: &Bench,
    what: &str,
    place: Place,
    callers: Vec<Caller>,
    prepared: usize,
) -> Figures {
    let (backend, alice) = (bench.caller("backend").await, bench.caller("alice").await);
    let operations = stream::iter((0..prepared).map(|number| place.operation(number)));
    let preparing =
        operations.map(async |operation| alice.approve(&backend.ask_about(&operation).await).await);
    preparing.buffer_unordered(128).collect::<Vec<()>>().await;
    measure(what, callers, prepared, move |caller, number| {
        let operation = place.operation(number);
        async move { assert_eq!(caller.ask_about(&operation).await.outcome(), Outcome::Approved) }
    })
    .await
}
