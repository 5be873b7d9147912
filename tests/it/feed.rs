//! The promises of the feed, each with the fault that would break it. What subscribers are sent is recorded, and
//! checked afterwards by pure functions (`check`).

use approval_authority::proto::{
    ApprovalEvent, WatchApprovalsResponse, watch_approvals_response::Message,
};
use tonic::{Code, Status, Streaming};

mod bookmarks;
pub mod check;
mod crashes;
mod drain;
mod namespaces;
mod pictures;
mod snapshot;
mod tail;
mod unread;
mod wake_ups;

/// The event that a response carries, if it does.
pub fn event(response: &WatchApprovalsResponse) -> Option<&ApprovalEvent> {
    match response.message.as_ref()? {
        Message::Event(event) => Some(event),
        Message::Bookmark(_) | Message::PendingApproval(_) => None,
    }
}

/// Reads a stream up to its end, which is an error.
pub async fn read_to_the_end(
    stream: &mut Streaming<WatchApprovalsResponse>,
) -> (Vec<WatchApprovalsResponse>, Status) {
    let mut history = Vec::new();
    loop {
        match stream.message().await {
            Ok(response) => history.push(response.expect("a stream ends with an error")),
            Err(ended) => return (history, ended),
        }
    }
}

/// Reads a stream until an event with this revision, or a later one, has come.
pub async fn read_up_to(
    stream: &mut Streaming<WatchApprovalsResponse>,
    revision: i64,
    history: &mut Vec<WatchApprovalsResponse>,
) -> Result<(), Status> {
    loop {
        let response = stream.message().await?.expect("a stream ends with an error");
        let reached = event(&response).is_some_and(|event| event.revision >= revision);
        history.push(response);
        if reached {
            return Ok(());
        }
    }
}

/// A stream may end only in ways that it can be resumed after.
pub fn assert_resumable(ended: &Status) {
    assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
}
