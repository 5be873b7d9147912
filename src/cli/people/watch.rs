//! `watch`: what happens to approvals, as it happens, for as long as somebody looks.

use std::{collections::HashSet, fmt::Write};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use tokio::time::sleep;

use super::{
    connection::Common,
    failure::{Exit, Failure},
    json, lapse,
    list::Where,
    output::{self, LABEL, Output, colour},
    shown::{name, operation, requester},
};
use crate::{
    gate::subscribe::{Ended, Interruption, Message},
    proto::{
        Approval, ApprovalEvent, ApprovalState, EventType, Start, WatchApprovalsRequest,
        WatchApprovalsResponse,
    },
    visible::Visible,
};

#[derive(Args)]
#[command(after_help = "\
It goes on until it is stopped: when the connection is lost, it connects again and goes on where it was. As JSON, each
message is a line; its \"cursor\" is what --after takes.

Examples:
  approval-authority watch
  approval-authority watch --workspace acme --descendants --from now
  approval-authority watch --from oldest --output json | jq -c .event")]
pub(in crate::cli) struct Watch {
    /// Where to begin.
    #[arg(long, value_enum, default_value_t, conflicts_with = "after")]
    from: From,
    /// Go on after the message with this cursor.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum From {
    /// With all that is pending, then what happens.
    #[default]
    Pending,
    /// With what happens from now on.
    Now,
    /// With the oldest event that is kept.
    Oldest,
}

impl Watch {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let Common { output, connection } = self.common;
        let authority = connection.open().await?;
        let (workspace_ids, include_descendants) = self.place.workspaces();
        let start = match (&self.after, self.from) {
            (Some(_), _) | (None, From::Now) => Start::Unspecified,
            (None, From::Pending) => Start::Pending,
            (None, From::Oldest) => Start::Oldest,
        };
        let mut subscription = authority.gate.subscribe(WatchApprovalsRequest {
            namespace: authority.namespace,
            after_cursor: self.after.unwrap_or_default(),
            start: start.into(),
            workspace_ids,
            include_descendants,
            event_types: Vec::new(),
        });
        let mut log = Log { output, pending: HashSet::new() };
        let (mut begun, mut lost) = (false, false);
        loop {
            match subscription.next_or_interruption().await? {
                Ok((message, cursor)) => {
                    if lost {
                        eprintln!("connected again");
                    }
                    (begun, lost) = (true, false);
                    log.print(message, cursor)?;
                }
                Err(Interruption { failure, .. }) if !begun => return Err(failure.into()),
                Err(Interruption { failure, pause }) => {
                    if !lost {
                        eprintln!("{}; trying again", Failure::from(failure).message());
                    }
                    lost = true;
                    sleep(pause).await;
                }
            }
        }
    }
}

impl std::convert::From<Ended> for Failure {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Invalid(status) => status.into(),
            Ended::CursorInvalid => Self::new(Exit::Usage, ended),
            Ended::CursorExpired | Ended::HistoryChanged => Self::new(Exit::MovedOn, ended),
        }
    }
}

/// What has been printed, and how.
struct Log {
    output: Output,
    /// Approvals that were printed as pending, by id and version. Until all of them have come they come again, if the
    /// connection is lost.
    pending: HashSet<(String, i32)>,
}

impl Log {
    fn print(&mut self, message: Message, cursor: String) -> Result<(), Failure> {
        match &message {
            Message::PendingApproval(approval) => {
                if !self.pending.insert((approval.id.clone(), approval.version)) {
                    return Ok(());
                }
            }
            Message::Bookmark(bookmark) if bookmark.pending_complete => self.pending.clear(),
            Message::Bookmark(_) | Message::Event(_) => {}
        }
        let printed = match (self.output, &message) {
            (Output::Json, _) => {
                json::line(&WatchApprovalsResponse { message: Some(message), cursor })? + "\n"
            }
            (Output::Text, Message::Event(event)) => event_line(event),
            (Output::Text, Message::PendingApproval(approval)) => pending_line(approval),
            (Output::Text, Message::Bookmark(_)) => return Ok(()),
        };
        Ok(output::text(&printed)?)
    }
}

fn pending_line(approval: &Approval) -> String {
    let left = lapse::left(approval.expire_time, Timestamp::now());
    let told = format!("{}, {left} left", asked(approval));
    line(&lapse::moment(approval.create_time), "PENDING", approval.state(), approval, &told)
}

fn event_line(event: &ApprovalEvent) -> String {
    let approval = event.approval.clone().unwrap_or_default();
    let by = |words: &str| match event.actor.as_str() {
        "" => words.to_owned(),
        actor if words.is_empty() => format!("by {actor}"),
        actor => format!("by {actor}: {words}"),
    };
    let verdict = || approval.verdicts.last().map_or("", |verdict| verdict.reason.as_str());
    let told = match event.r#type() {
        EventType::Requested => asked(&approval),
        EventType::Escalated => format!("to {}", event.workspace_id),
        EventType::Reviewed | EventType::Approved | EventType::Denied => by(verdict()),
        EventType::ResultReported => by(name(approval.result().as_str_name(), "RESULT_")),
        EventType::Consumed
        | EventType::Expired
        | EventType::Withdrawn
        | EventType::Revoked
        | EventType::Unspecified => by(""),
    };
    let kind = name(event.r#type().as_str_name(), "EVENT_TYPE_");
    line(&lapse::moment(event.time), kind, approval.state(), &approval, &told)
}

/// Who asks for it, and why.
fn asked(approval: &Approval) -> String {
    match approval.reason.as_str() {
        "" => format!("by {}", requester(approval)),
        reason => format!("by {}: {reason}", requester(approval)),
    }
}

fn line(time: &str, kind: &str, state: ApprovalState, approval: &Approval, told: &str) -> String {
    let (style, operation) = (colour(state), operation(approval));
    let mut line = String::new();
    // Writing to a String does not fail.
    let _ = write!(line, "{LABEL}{time}{LABEL:#}  {style}{kind:15}{style:#}  {operation}");
    let _ = match told {
        "" => writeln!(line),
        told => writeln!(line, "  {}", Visible(told)),
    };
    line
}
