//! How long a call may take: as long as its caller waits, and never for ever.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tonic::{Request, Response, Status, metadata::MetadataMap};

use super::{
    guard::{self, Admitted},
    limits::Place,
};
use crate::{auth::Caller, error::Error, traces::Trace};

/// How long a call may wait for the database where its caller names no deadline.
const PATIENCE: Duration = Duration::from_secs(10);

/// Of the caller's deadline: what is left to answer in once a call has waited for people as long as it may.
const TO_ANSWER: f64 = 0.2;

/// Of the caller's deadline: what the answer needs to get there.
const TO_ARRIVE: f64 = 0.1;

/// Carries out a call of a service's within its caller's deadline, less what the answer needs to get there in time.
///
/// When the time is up the caller is told `late`.
pub(super) async fn carry_out<S: Clone, Asked, Answer, W>(
    service: &S,
    request: Request<Asked>,
    late: Error,
    work: impl FnOnce(S, Caller, Asked) -> W,
) -> Result<Response<Answer>, Status>
where
    W: Future<Output = Result<Answer, Error>> + Send + 'static,
    Answer: Send + 'static,
{
    let deadline = of(request.metadata());
    let Admitted { caller, place, .. } = guard::admitted(&request)?;
    let work = Box::pin(work(service.clone(), caller, request.into_inner()));
    Ok(Response::new(within(deadline, Duration::ZERO, place, late, work).await?))
}

/// Waits for work within a deadline; the work itself may wait for people as well.
///
/// In a task of its own: what was begun goes on when nobody waits for it any more, and harms nobody. It keeps its place until it has ended.
/// Otherwise a caller that takes its calls back as soon as they are made would have any number of them in the database.
pub(super) async fn within<Answer: Send + 'static>(
    deadline: Option<Duration>,
    wait: Duration,
    place: Arc<Place>,
    late: Error,
    work: BoxFuture<'static, Result<Answer, Error>>,
) -> Result<Answer, Error> {
    let patience = PATIENCE + wait;
    let patience = match deadline {
        Some(deadline) => patience.min(deadline.mul_f64(1.0 - TO_ARRIVE)),
        None => patience,
    };
    let work = tokio::spawn(Trace::current().carry(async move {
        let answer = work.await;
        drop(place);
        answer
    }));
    match timeout(patience, work).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panic)) => Err(Error::internal(panic)),
        Err(_) => Err(late),
    }
}

/// How long a call waits for people: as long as it asks for, and not so long that the answer would come too late.
pub(super) fn wait(deadline: Option<Duration>, asked_for: Duration) -> Duration {
    match deadline {
        Some(deadline) => asked_for.min(deadline.mul_f64(1.0 - TO_ANSWER)),
        None => asked_for,
    }
}

/// The caller's deadline, from the `grpc-timeout` header: at most eight digits and a unit ("PROTOCOL-HTTP2" of
/// the gRPC specification). A header that cannot be read is none: the transport refuses it by itself.
pub(super) fn of(metadata: &MetadataMap) -> Option<Duration> {
    let header = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &'static str) -> Option<Duration> {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", header.parse().expect("ASCII"));
        of(&metadata)
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let seconds = Duration::from_secs;
        let cases = [
            (None, Duration::ZERO, seconds(10)),
            (None, seconds(60), seconds(70)),
            (Some(seconds(5)), seconds(4), Duration::from_millis(4_500)),
            (Some(seconds(100)), Duration::ZERO, seconds(10)),
        ];
        for (deadline, wait, patience) in cases {
            let begun = tokio::time::Instant::now();
            let never = Box::pin(std::future::pending());
            let place = Place::example();
            let answer = within::<()>(deadline, wait, place, Error::OutcomeUnknown, never).await;
            assert_eq!(answer, Err(Error::OutcomeUnknown));
            assert_eq!(begun.elapsed(), patience, "{deadline:?} {wait:?}");
        }
    }

    #[test]
    fn a_wait_leaves_time_to_answer() {
        let seconds = Duration::from_secs;
        assert_eq!(wait(None, seconds(60)), seconds(60));
        assert_eq!(wait(Some(seconds(10)), seconds(5)), seconds(5));
        assert_eq!(wait(Some(seconds(10)), seconds(60)), seconds(8));
        assert_eq!(wait(Some(Duration::ZERO), seconds(60)), Duration::ZERO);
    }

    #[test]
    fn the_header_is_read_as_the_specification_has_it() {
        assert_eq!(read("2S"), Some(Duration::from_secs(2)));
        assert_eq!(read("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(read("999999999S"), None);
        assert_eq!(read("S"), None);
        assert_eq!(read("1x"), None);
        assert_eq!(of(&MetadataMap::new()), None);
    }
}
