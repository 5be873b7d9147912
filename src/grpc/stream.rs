//! A watch as a stream that the transport takes messages from. A subscriber that does not take them holds up nothing
//! but itself: nothing is read ahead for it, and after a while it is closed with its last cursor.

use std::{sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use tokio::{
    sync::{
        mpsc::{self, Permit, error::TrySendError},
        oneshot,
    },
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    connections::Line,
    limits::Place,
    taken::Taken,
    watch::{Told, Watch},
};
use crate::{error::Error, proto::WatchApprovalsResponse};

/// A subscriber that has not taken a message for this long is not waited for with a page in hand.
const IN_A_HURRY: Duration = Duration::from_millis(500);

/// Messages that are read before the first of them is taken, so that reading and taking go on side by side.
const AHEAD: usize = 16;

/// The messages of a watch, and the error that ends it. `unread`: how long a message may wait to be taken, and then all that is
/// left, before the connection is closed: those who do not read must not leave more and more behind.
pub(super) fn of(
    watch: Watch,
    place: Arc<Place>,
    line: Arc<Line>,
    unread: Duration,
    draining: CancellationToken,
) -> impl Stream<Item = Result<WatchApprovalsResponse, Status>> {
    // A few messages: what is behind them is still in the table.
    let (sender, receiver) = mpsc::channel::<Told>(AHEAD);
    let (end, ended) = oneshot::channel();
    let (left, taken) = oneshot::channel();
    tokio::spawn(async move {
        if let Err(error) = deliver(watch, &sender, unread, &draining).await {
            // A subscriber that has gone is not there to be told.
            let _ = end.send(error);
        }
        place.leave();
        // Let go of with all that is left of the stream.
        let _ = left.send(Taken::within(unread, line));
    });
    let delivery = Delivery { receiver, ended, error: None, _taken: taken };
    stream::unfold(delivery, |mut delivery| async move {
        let message = delivery.next().await?;
        Some((message.map_err(Status::from), delivery))
    })
}

/// The subscriber's side.
struct Delivery {
    receiver: mpsc::Receiver<Told>,
    ended: oneshot::Receiver<Error>,
    /// Why it ended, once that is known.
    error: Option<Error>,
    /// Once it has ended: what waits for all of it to be taken.
    _taken: oneshot::Receiver<Taken>,
}

impl Delivery {
    /// The next message; the error that ends the stream, after the last; then nothing.
    async fn next(&mut self) -> Option<Result<WatchApprovalsResponse, Error>> {
        if self.error.is_none() {
            self.error = self.ended.try_recv().ok();
        }
        if let Some(Error::Unauthenticated | Error::RoleMissing) = self.error {
            // What was made for it before is not for it any more.
            self.receiver.close();
            while self.receiver.try_recv().is_ok() {}
        }
        if let Some(told) = self.receiver.recv().await {
            return Some(told.into_message());
        }
        if self.ended.is_terminated() && self.error.is_none() {
            return None;
        }
        let error = match self.error.take() {
            Some(error) => error,
            None => match (&mut self.ended).await {
                Ok(error) => error,
                Err(_) => Error::internal("a stream ended without a word"),
            },
        };
        Some(Err(error))
    }
}

/// Returns when the subscriber has gone; the error is for it to be told.
async fn deliver(
    mut watch: Watch,
    sender: &mpsc::Sender<Told>,
    unread: Duration,
    draining: &CancellationToken,
) -> Result<(), Error> {
    loop {
        let Some(room) = room(&mut watch, sender, unread).await? else { return Ok(()) };
        tokio::select! {
            () = sender.closed() => return Ok(()),
            message = watch.next(draining) => room.send(message?),
        }
    }
}

/// Room for a message, once there is some; none when the subscriber has gone.
async fn room<'a>(
    watch: &mut Watch,
    sender: &'a mpsc::Sender<Told>,
    unread: Duration,
) -> Result<Option<Permit<'a, Told>>, Error> {
    match sender.try_reserve() {
        Ok(room) => return Ok(Some(room)),
        Err(TrySendError::Closed(())) => return Ok(None),
        Err(TrySendError::Full(())) => {}
    }
    let room = match timeout(IN_A_HURRY.min(unread), sender.reserve()).await {
        Ok(room) => room,
        Err(_) => {
            watch.let_go();
            timeout(unread, sender.reserve()).await.map_err(|_| Error::SubscriberTooSlow)?
        }
    };
    Ok(room.ok())
}
