//! `watch`: what happens to approvals, as it happens, for as long as somebody looks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    io::{self, Write as _},
};

use clap::{Args, ValueEnum, builder::NonEmptyStringValueParser};
use jiff::Timestamp;

use super::{
    connection::{Authority, Common},
    failure::{Exit, Failure},
    json, lapse,
    list::Where,
    output::{self, LABEL, Output, colour},
    shown::{name, operation, requester, state_name},
    which::short,
};
use crate::{
    gate::subscribe::{Ended, Message},
    proto::{
        Approval, ApprovalEvent, ApprovalState, EventType, Start, WatchApprovalsRequest,
        WatchApprovalsResponse,
    },
    visible::Visible,
};

#[derive(Args)]
#[command(after_help = "\
It goes on until it is stopped: when the connection is lost, it connects again and goes on where it was. As JSON, each
message is a line; its \"cursor\" is what --after takes. If the connection is lost before all that is pending has come, it
begins with that again; what was told to be pending and is no more is told then, as it is now (as JSON, by the \"state\" of
its \"pendingApproval\").

Examples:
  approval-authority watch
  approval-authority watch --workspace acme --descendants --from now
  approval-authority watch --from oldest --output json | jq -c .event")]
pub(in crate::cli) struct Watch {
    /// Where to begin.
    #[arg(long, value_enum, default_value_t, conflicts_with = "after")]
    from: From,
    /// Go on after the message with this cursor.
    #[arg(long, value_name = "CURSOR", value_parser = NonEmptyStringValueParser::new())]
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
            namespace: authority.namespace.clone(),
            after_cursor: self.after.unwrap_or_default(),
            start: start.into(),
            workspace_ids,
            include_descendants,
            event_types: Vec::new(),
        });
        let mut log = Log::new(output, authority);
        let (mut begun, mut lost) = (false, false);
        loop {
            match subscription.next_or_interruption().await? {
                Ok((message, cursor)) => {
                    if lost {
                        say("connected again");
                    }
                    (begun, lost) = (true, false);
                    log.begin(subscription.beginnings());
                    log.tell(message, cursor).await?;
                }
                Err(status) => {
                    let failure = Failure::from(status).at(&log.authority.server);
                    if !begun {
                        return Err(failure);
                    }
                    if !lost {
                        say(&format!("{}; trying again", failure.message()));
                    }
                    lost = true;
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

/// Says how it stands with the connection, beside what is printed. There may be nobody to read it.
fn say(words: &str) {
    let _ = writeln!(io::stderr(), "{words}");
}

/// What has been printed, and how.
struct Log {
    output: Output,
    authority: Authority,
    /// How often it has begun with what is pending.
    beginnings: usize,
    /// Approvals that were printed as pending, and in which version, until all of them have come. If the connection is lost
    /// before, they come again, as far as they are pending still.
    printed: BTreeMap<String, i32>,
    /// Those that have come since it last began.
    pending: BTreeSet<String>,
}

impl Log {
    fn new(output: Output, authority: Authority) -> Self {
        let (printed, pending) = (BTreeMap::new(), BTreeSet::new());
        Self { output, authority, beginnings: 0, printed, pending }
    }

    fn begin(&mut self, beginnings: usize) {
        if self.beginnings != beginnings {
            self.beginnings = beginnings;
            self.pending.clear();
        }
    }

    async fn tell(&mut self, message: Message, cursor: String) -> Result<(), Failure> {
        match &message {
            Message::PendingApproval(approval) => {
                self.pending.insert(approval.id.clone());
                let printed = self.printed.insert(approval.id.clone(), approval.version);
                if printed == Some(approval.version) {
                    return Ok(());
                }
            }
            Message::Bookmark(bookmark) if bookmark.pending_complete => {
                for id in std::mem::take(&mut self.printed).into_keys() {
                    if !self.pending.remove(&id) {
                        self.tell_of_the_end(&id).await?;
                    }
                }
            }
            Message::Bookmark(_) | Message::Event(_) => {}
        }
        self.print(message, cursor)
    }

    /// Of one that was printed as pending, and is that no more.
    async fn tell_of_the_end(&self, id: &str) -> Result<(), Failure> {
        match self.authority.get(id).await {
            Ok(approval) => self.print(Message::PendingApproval(approval), String::new()),
            Err(failure) => {
                let id = short(id);
                say(&format!("{id} is pending no more, and cannot be read: {}", failure.message()));
                Ok(())
            }
        }
    }

    fn print(&self, message: Message, cursor: String) -> Result<(), Failure> {
        let line = match (self.output, &message) {
            (Output::Json, _) => {
                let message = WatchApprovalsResponse { message: Some(message), cursor };
                return Ok(output::plain(&(json::line(&message)? + "\n"))?);
            }
            (Output::Text, Message::Event(event)) => event_line(event),
            (Output::Text, Message::PendingApproval(approval)) => approval_line(approval),
            (Output::Text, Message::Bookmark(_)) => return Ok(()),
        };
        Ok(output::text(&line)?)
    }
}

/// Of an approval that is pending, or was so until the connection was lost.
fn approval_line(approval: &Approval) -> String {
    let state = approval.state();
    let (time, told) = match state {
        ApprovalState::Pending => {
            let left = lapse::left(approval.expire_time, Timestamp::now());
            (approval.create_time, format!("{}, {left} left", asked(approval)))
        }
        _ => (approval.decide_time.or(approval.create_time), "while not connected".to_owned()),
    };
    line(&lapse::moment(time), state_name(state), state, approval, &told)
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
