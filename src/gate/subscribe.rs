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
//! // An empty cursor would mean from now on, without what is pending.
//! let from = match stored.filter(|cursor| !cursor.is_empty()) {
//!     Some(after_cursor) => WatchApprovalsRequest { after_cursor, ..Default::default() },
//!     None => WatchApprovalsRequest { start: Start::Pending.into(), ..Default::default() },
//! };
//! let mut subscription = gate.subscribe(from);
//! loop {
//!     let (message, cursor) = subscription.next().await?;
//!     if let Message::Event(event) = message {
//!         println!("{event:?}");
//!     }
//!     // Once the message has been dealt with. With what is pending there is none: until all of that has come, begin again.
//!     if !cursor.is_empty() {
//!         store(cursor);
//!     }
//! }
//! # }
//! ```

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until, timeout_at};
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
///
/// All that it waits for is kept here, not in a future of its methods: whoever drops one and asks again finds it where it was.
#[derive(Debug)]
pub struct Subscription {
    calls: Arc<Calls>,
    /// Asks for what comes next.
    request: WatchApprovalsRequest,
    stream: Stream,
    /// When something was last heard on it.
    heard: Instant,
    backoff: Backoff,
    /// No attempt is made before this.
    not_before: Option<Instant>,
    /// Attempts so far; each goes to the next server.
    attempts: usize,
    beginnings: usize,
}

enum Stream {
    Closed,
    Opening(
        Pin<Box<dyn Future<Output = Result<Streaming<WatchApprovalsResponse>, Status>> + Send>>,
    ),
    Open(Box<Streaming<WatchApprovalsResponse>>),
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "Closed",
            Self::Opening(_) => "Opening",
            Self::Open(_) => "Open",
        })
    }
}

impl Gate {
    /// Follows what happens to approvals, from where the request says. It has a connection of its own.
    pub fn subscribe(&self, from: WatchApprovalsRequest) -> Subscription {
        Subscription {
            calls: self.0.clone(),
            request: from,
            stream: Stream::Closed,
            heard: Instant::now(),
            backoff: Backoff::default(),
            not_before: None,
            attempts: 0,
            beginnings: 0,
        }
    }
}

impl Subscription {
    /// The next message, with the cursor after it: for the caller to store once the message has been dealt with, and to
    /// begin after the next time. With a pending approval it is empty, and not to be stored: if the stream ends before all
    /// of them have come, they come again, see [`beginnings`](Self::beginnings).
    ///
    /// Bookmarks are handed out too: on a stream of few events their cursors are what keeps the stored one from expiring.
    /// Whoever drops this future misses nothing, and asks no server more often.
    pub async fn next(&mut self) -> Result<(Message, String), Ended> {
        loop {
            match self.next_or_interruption().await? {
                Ok(message) => return Ok(message),
                Err(failure) => tracing::warn!(%failure, "the stream of approvals is resumed"),
            }
        }
    }

    /// How often it has begun with what is pending, as [`Start::Pending`] asks it to. Where this is more than it was before a
    /// message, the picture begins anew with that message: what came as pending before may have been decided meanwhile, and
    /// is if it does not come again before the bookmark that says that all of it has.
    pub fn beginnings(&self) -> usize {
        self.beginnings
    }

    /// The next message, or why there is none now: for those who tell a person so before they ask again.
    pub(crate) async fn next_or_interruption(
        &mut self,
    ) -> Result<Result<(Message, String), Status>, Ended> {
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
            self.stream = Stream::Closed;
            if let Some(ended) = end(&failure) {
                return Err(ended);
            }
            self.not_before = Some(Instant::now() + self.backoff.next().max(asked_for(&failure)));
            return Ok(Err(failure));
        }
    }

    async fn receive(&mut self) -> Result<WatchApprovalsResponse, Status> {
        if let Some(begin) = self.not_before {
            sleep_until(begin).await;
            self.not_before = None;
        }
        loop {
            let quiet = self.heard + QUIET;
            match &mut self.stream {
                Stream::Closed => {
                    let (calls, request) = (self.calls.clone(), self.request.clone());
                    if request.start() == Start::Pending {
                        self.beginnings += 1;
                    }
                    self.stream = Stream::Opening(Box::pin(open(calls, self.attempts, request)));
                    self.attempts += 1;
                    self.heard = Instant::now();
                }
                Stream::Opening(opening) => {
                    let opened = timeout_at(quiet, opening.as_mut()).await;
                    self.stream =
                        Stream::Open(Box::new(opened.unwrap_or_else(|_| Err(silence()))?));
                    self.heard = Instant::now();
                }
                Stream::Open(stream) => {
                    let message = timeout_at(quiet, stream.message()).await;
                    let message = message.unwrap_or_else(|_| Err(silence()))?;
                    self.heard = Instant::now();
                    return message.ok_or_else(|| Status::unavailable("the stream was closed"));
                }
            }
        }
    }
}

async fn open(
    calls: Arc<Calls>,
    server: usize,
    request: WatchApprovalsRequest,
) -> Result<Streaming<WatchApprovalsResponse>, Status> {
    let request = calls.request(request, calls.credential().await);
    let mut approvals = ApprovalServiceClient::new(calls.connection(server));
    Ok(approvals.watch_approvals(request).await?.into_inner())
}

fn silence() -> Status {
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
