//! Follows what happens to approvals, for as long as it is asked to: whatever ends the stream, it goes on where it was.
//!
//! ```no_run
//! # async fn example(
//! #     gate: approval_authority::gate::Gate,
//! #     stored: Option<String>,
//! #     store: impl Fn(String),
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use approval_authority::gate::subscribe::{Message, Start, WatchApprovalsRequest};
//!
//! let from = match stored {
//!     Some(after_cursor) => WatchApprovalsRequest { after_cursor, ..Default::default() },
//!     None => WatchApprovalsRequest { start: Start::Pending.into(), ..Default::default() },
//! };
//! let mut subscription = gate.subscribe(from);
//! loop {
//!     let (message, cursor) = subscription.next().await?;
//!     if let Message::Event(event) = message {
//!         println!("{event:?}");
//!     }
//!     store(cursor); // once the message has been dealt with
//! }
//! # }
//! ```

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tonic::{Code, Status, Streaming};

use super::{
    Gate,
    calls::{Backoff, Calls, asked_for},
    reason,
};
pub use crate::proto::{
    ApprovalEvent, Bookmark, EventType, Start, WatchApprovalsRequest,
    watch_approvals_response::Message,
};
use crate::proto::{WatchApprovalsResponse, approval_service_client::ApprovalServiceClient};

/// A stream on which nothing comes for so long is dead: a quiet one has a bookmark every 15 s.
const QUIET: Duration = Duration::from_secs(60);

/// Why a subscription cannot go on. Whatever else happens, it does.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The cursor is not one of this namespace's.
    #[error("the cursor is not one of this namespace's")]
    CursorInvalid,
    /// Nobody followed for longer than events are kept. Begin again with [`Start::Pending`].
    #[error("the log no longer reaches back to the cursor; begin again with what is pending")]
    CursorExpired,
    /// The log is another one now, as after a database was restored. Begin again with [`Start::Pending`].
    #[error("the log is another one now; begin again with what is pending")]
    HistoryChanged,
    /// Nobody can follow this, however often they ask.
    #[error("this cannot be followed: {}", .0.message())]
    Invalid(Status),
}

/// Somebody who follows what happens to approvals.
#[derive(Debug)]
pub struct Subscription {
    calls: Arc<Calls>,
    /// Asks for what comes next.
    request: WatchApprovalsRequest,
    stream: Option<Streaming<WatchApprovalsResponse>>,
    backoff: Backoff,
    /// Attempts so far; each goes to the next server.
    attempts: usize,
}

/// A stream that broke off.
#[derive(Debug)]
pub(crate) struct Interruption {
    pub(crate) failure: Status,
    /// How long to wait before asking for the next message.
    pub(crate) pause: Duration,
}

impl Gate {
    /// Follows what happens to approvals, from where the request says. It has a connection of its own.
    pub fn subscribe(&self, from: WatchApprovalsRequest) -> Subscription {
        Subscription {
            calls: self.0.clone(),
            request: from,
            stream: None,
            backoff: Backoff::default(),
            attempts: 0,
        }
    }
}

impl Subscription {
    /// The next message, with the cursor after it: for the caller to store once the message has been dealt with, and to
    /// begin after the next time. With a pending approval it is empty: if the stream ends before all of them have come,
    /// they come again.
    ///
    /// Bookmarks are handed out too: on a stream of few events their cursors are what keeps the stored one from expiring.
    /// Whoever drops this future misses nothing.
    pub async fn next(&mut self) -> Result<(Message, String), Ended> {
        loop {
            match self.next_or_interruption().await? {
                Ok(message) => return Ok(message),
                Err(Interruption { failure, pause }) => {
                    tracing::warn!(%failure, ?pause, "the stream of approvals is resumed");
                    sleep(pause).await;
                }
            }
        }
    }

    /// The next message, or why there is none now: for those who tell a person so before they go on.
    pub(crate) async fn next_or_interruption(
        &mut self,
    ) -> Result<Result<(Message, String), Interruption>, Ended> {
        loop {
            let failure = match self.receive().await {
                Ok(WatchApprovalsResponse { message: Some(message), cursor }) => {
                    self.backoff = Backoff::default();
                    if !cursor.is_empty() {
                        self.request.after_cursor.clone_from(&cursor);
                        self.request.start = Start::Unspecified.into();
                    }
                    return Ok(Ok((message, cursor)));
                }
                // A message of a kind that is not known here. Its cursor moves on with the next.
                Ok(_) => continue,
                Err(status) => status,
            };
            self.stream = None;
            if let Some(ended) = end(&failure) {
                return Err(ended);
            }
            let pause = self.backoff.next().max(asked_for(&failure));
            return Ok(Err(Interruption { failure, pause }));
        }
    }

    async fn receive(&mut self) -> Result<WatchApprovalsResponse, Status> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let server = self.attempts;
                self.attempts += 1;
                let opened = timeout(QUIET, open(&self.calls, server, self.request.clone())).await;
                self.stream.insert(opened.unwrap_or_else(|_| Err(quiet()))?)
            }
        };
        let message = timeout(QUIET, stream.message()).await.unwrap_or_else(|_| Err(quiet()))?;
        message.ok_or_else(|| Status::unavailable("the stream was closed"))
    }
}

async fn open(
    calls: &Calls,
    server: usize,
    request: WatchApprovalsRequest,
) -> Result<Streaming<WatchApprovalsResponse>, Status> {
    let request = calls.request(request, calls.credential().await);
    let mut approvals = ApprovalServiceClient::new(calls.connection(server));
    Ok(approvals.watch_approvals(request).await?.into_inner())
}

fn quiet() -> Status {
    Status::deadline_exceeded("nothing comes")
}

/// Why it cannot go on. A credential or a role that is missing now may be there later: people renew them while
/// subscribers run.
fn end(status: &Status) -> Option<Ended> {
    match (status.code(), reason(status).as_str()) {
        (Code::InvalidArgument, "CURSOR_INVALID") => Some(Ended::CursorInvalid),
        (Code::OutOfRange, "CURSOR_EXPIRED") => Some(Ended::CursorExpired),
        (Code::FailedPrecondition, "HISTORY_CHANGED") => Some(Ended::HistoryChanged),
        (Code::InvalidArgument | Code::Unimplemented, _) => Some(Ended::Invalid(status.clone())),
        _ => None,
    }
}
