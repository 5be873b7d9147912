//! `pending` and `list`: approvals, a line for each.

use std::{io, num::NonZeroUsize};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use unicode_width::UnicodeWidthStr;

use super::{
    connection::Common,
    failure::Failure,
    fold::columns,
    lapse,
    shown::{requester, state_name},
    which::short,
};
use crate::{
    cli::table::Table,
    proto::{Approval, ApprovalState, ListApprovalsRequest},
    visible::Visible,
};

/// As much of a reason as fits beside the rest. `show`, and all that asks for a decision, has the whole.
const REASON: usize = 60;

/// Which workspaces.
#[derive(Args)]
pub(super) struct Where {
    /// Only of this workspace; can be repeated.
    #[arg(long = "workspace", value_name = "ID")]
    workspaces: Vec<String>,
    /// Also of those below it.
    #[arg(long, requires = "workspaces")]
    descendants: bool,
}

/// Which approvals, but for their state.
#[derive(Args)]
struct Filter {
    #[command(flatten)]
    place: Where,
    /// Only this action; can be repeated.
    #[arg(long = "action", value_name = "NAME")]
    actions: Vec<String>,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  approval-authority pending
  approval-authority pending --workspace acme --descendants
  approval-authority pending --output json | jq -r '.approvals[].id'")]
pub(in crate::cli) struct Pending {
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  approval-authority list
  approval-authority list --state denied --state revoked --limit 20
  approval-authority list --action delete_workspace --output json")]
pub(in crate::cli) struct List {
    #[command(flatten)]
    filter: Filter,
    /// Only in this state; can be repeated.
    #[arg(long = "state", value_enum, value_name = "STATE")]
    states: Vec<State>,
    /// Only the newest.
    #[arg(long, value_name = "NUMBER")]
    limit: Option<NonZeroUsize>,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, ValueEnum)]
enum State {
    Pending,
    Approved,
    Denied,
    Consumed,
    Expired,
    Withdrawn,
    Revoked,
}

impl From<State> for ApprovalState {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Approved => Self::Approved,
            State::Denied => Self::Denied,
            State::Consumed => Self::Consumed,
            State::Expired => Self::Expired,
            State::Withdrawn => Self::Withdrawn,
            State::Revoked => Self::Revoked,
        }
    }
}

impl Where {
    pub(super) fn workspaces(self) -> (Vec<String>, bool) {
        (self.workspaces, self.descendants)
    }
}

impl Filter {
    fn request(self, states: impl Iterator<Item = ApprovalState>) -> ListApprovalsRequest {
        let (workspace_ids, include_descendants) = self.place.workspaces();
        ListApprovalsRequest {
            workspace_ids,
            include_descendants,
            states: states.map(i32::from).collect(),
            actions: self.actions,
            ..Default::default()
        }
    }
}

impl Pending {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let Common { output, connection } = self.common;
        let authority = connection.open().await?;
        let request = self.filter.request([ApprovalState::Pending].into_iter());
        let mut listed = authority.list(request, usize::MAX).await?;
        listed
            .approvals
            .sort_by_key(|approval| approval.expire_time.map(|time| (time.seconds, time.nanos)));
        let room = columns(io::stdout());
        output.print(&listed, || pending_table(&listed.approvals, Timestamp::now(), room))?;
        Ok(())
    }
}

impl List {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let Common { output, connection } = self.common;
        let authority = connection.open().await?;
        let request = self.filter.request(self.states.into_iter().map(ApprovalState::from));
        let listed =
            authority.list(request, self.limit.map_or(usize::MAX, NonZeroUsize::get)).await?;
        let room = columns(io::stdout());
        output.print(&listed, || table(&listed.approvals, Timestamp::now(), room))?;
        Ok(())
    }
}

fn pending_table(approvals: &[Approval], now: Timestamp, room: Option<usize>) -> String {
    if approvals.is_empty() {
        return "nothing is pending\n".to_owned();
    }
    let headings = ["ID", "LEFT", "GIVEN", "ACTION", "WORKSPACE", "REQUESTER", "REASON"];
    let mut table = Table::new(headings).within(room);
    for approval in approvals {
        table.row([
            short(&approval.id).to_owned(),
            lapse::left(approval.expire_time, now),
            format!("{}/{}", approval.verdicts.len(), approval.approvals_required),
            approval.action.clone(),
            approval.workspace_id.clone(),
            requester(approval),
            beginning(&approval.reason),
        ]);
    }
    table.to_string()
}

fn table(approvals: &[Approval], now: Timestamp, room: Option<usize>) -> String {
    if approvals.is_empty() {
        return "nothing is there\n".to_owned();
    }
    let headings =
        ["ID", "STATE", "REQUESTED", "LEFT", "ACTION", "WORKSPACE", "REQUESTER", "REASON"];
    let mut table = Table::new(headings).within(room);
    for approval in approvals {
        let state = approval.state();
        let open = matches!(state, ApprovalState::Pending | ApprovalState::Approved);
        table.row([
            short(&approval.id).to_owned(),
            state_name(state).to_owned(),
            lapse::moment(approval.create_time),
            if open { lapse::left(approval.expire_time, now) } else { "-".to_owned() },
            approval.action.clone(),
            approval.workspace_id.clone(),
            requester(approval),
            beginning(&approval.reason),
        ]);
    }
    table.to_string()
}

/// As much of a text as there is room for, with a mark where it goes on.
fn beginning(text: &str) -> String {
    let mut width = 0;
    let mut kept = String::new();
    for c in text.chars() {
        width += match c {
            ' ' => 1,
            c => Visible(c.encode_utf8(&mut [0; 4])).to_string().width(),
        };
        if width > REASON {
            kept.push('…');
            break;
        }
        kept.push(c);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_takes_no_more_room_than_there_is() {
        let wide = "削".repeat(REASON);
        let spelt_out = "\u{e0041}".repeat(REASON);
        let words = "a reason ".repeat(REASON);
        for (text, kept) in [(&wide, 30), (&spelt_out, 6), (&words, 60)] {
            let cell = beginning(text);
            assert_eq!(cell.chars().count(), kept + 1, "{cell}");
            assert!(Visible(&cell).to_string().width() <= REASON + 1, "{cell}");
        }
        assert_eq!(beginning("why not"), "why not");
    }
}
