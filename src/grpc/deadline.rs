//! How long a call may take: as long as its caller waits, and never for ever.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{runtime::Handle, time::timeout};
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
    mut request: Request<Asked>,
    late: Error,
    work: impl FnOnce(S, Caller, Asked) -> W,
) -> Result<Response<Answer>, Status>
where
    W: Future<Output = Result<Answer, Error>> + Send + 'static,
    Answer: Send + 'static,
{
    let deadline = of(request.metadata());
    let Admitted { caller, place, .. } = guard::admitted(&mut request)?;
    let work = Box::pin(work(service.clone(), caller, request.into_inner()));
    Ok(Response::new(within(deadline, Duration::ZERO, place, late, work).await?))
}

/// Waits for work within a deadline; the work itself may wait for people as well.
///
/// What was begun goes on when nobody waits for it any more, and harms nobody.
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
    let begun = Begun(Some(Work { work, place, trace: Trace::current() }));
    match timeout(patience, AssertUnwindSafe(begun).catch_unwind()).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panic)) => Err(Error::internal(format!("a call panicked: {}", words(&*panic)))),
        Err(_) => Err(late),
    }
}

/// What a panic says. Its place has been printed by the process's hook.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no words")
}

/// Work that is done where it is waited for and, once nobody waits for it any more, in a task of its own. None: it has ended.
struct Begun<Answer: Send + 'static>(Option<Work<Answer>>);

struct Work<Answer> {
    work: BoxFuture<'static, Result<Answer, Error>>,
    /// Kept until the work has ended. Otherwise a caller that takes its calls back as soon as they are made would have any
    /// number of them in the database.
    place: Arc<Place>,
    trace: Trace,
}

impl<Answer: Send + 'static> Future for Begun<Answer> {
    type Output = Result<Answer, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Taken out, so that what panics has ended.
        let Some(mut work) = self.0.take() else { return Poll::Pending };
        let polled = work.work.as_mut().poll(cx);
        if polled.is_pending() {
            self.0 = Some(work);
        }
        polled
    }
}

impl<Answer: Send + 'static> Drop for Begun<Answer> {
    fn drop(&mut self) {
        // Where there is no runtime any more, nothing goes on.
        if let Some(Work { work, place, trace }) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(trace.carry(async move {
                let _late = work.await;
                drop(place);
            }));
        }
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
    use tokio::sync::oneshot;

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

    /// Work that ends when it is told to, and how many have a place for it.
    struct Slow {
        end: oneshot::Sender<()>,
        ended: oneshot::Receiver<()>,
        place: Arc<Place>,
    }

    impl Slow {
        fn begin() -> (Self, BoxFuture<'static, Result<(), Error>>) {
            let (end, told) = oneshot::channel();
            let (end_of, ended) = oneshot::channel();
            let work = Box::pin(async move {
                told.await.map_err(Error::internal)?;
                end_of.send(()).map_err(|()| Error::internal("nobody asks"))
            });
            (Self { end, ended, place: Place::example() }, work)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_any_more_goes_on_and_keeps_its_place() {
        for is_taken_back in [true, false] {
            let (slow, work) = Slow::begin();
            let (place, late) = (slow.place.clone(), Error::OutcomeUnknown);
            let mut call = Box::pin(within(None, Duration::ZERO, place, late, work));
            if is_taken_back {
                assert!(call.as_mut().now_or_never().is_none());
            } else {
                assert_eq!(call.as_mut().await, Err(Error::OutcomeUnknown), "it takes too long");
            }
            drop(call);
            assert_eq!(Arc::strong_count(&slow.place), 2, "the work has its place");
            slow.end.send(()).expect("it goes on");
            slow.ended.await.expect("it has ended");
            tokio::task::yield_now().await;
            assert_eq!(Arc::strong_count(&slow.place), 1);
        }
    }

    #[tokio::test]
    async fn what_panics_is_an_error_and_leaves_its_place() {
        let place = Place::example();
        let work = Box::pin(async { panic!("a fault of ours") });
        let late = Error::StoreUnavailable;
        let answer = within::<()>(None, Duration::ZERO, place.clone(), late, work).await;
        assert!(matches!(answer, Err(Error::Internal { .. })), "{answer:?}");
        assert_eq!(Arc::strong_count(&place), 1);
        let said = |panic: Box<dyn Any + Send>| words(&*panic).to_owned();
        assert_eq!(said(Box::new("a fault")), "a fault");
        assert_eq!(said(Box::new(format!("fault {}", 1))), "fault 1");
        assert_eq!(said(Box::new(1)), "no words");
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
