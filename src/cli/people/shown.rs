//! All there is to know of an approval, for the person who decides. Nothing is cut short, and nothing is left invisible.

use std::fmt::{Display, Write};

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    failure::{Exit, Failure},
    fold::INDENT,
    json, lapse,
    output::{LABEL, colour},
    which::short,
};
use crate::{
    digest::{Context, RequestHash},
    names::{Action, WorkspaceId},
    proto::{self, Approval, ApprovalState, Decision, Verdict},
    visible::Visible,
};

/// The whole of an approval, and what its action does.
pub(super) fn whole(approval: &Approval, effect: &str) -> Result<String, Failure> {
    let state = approval.state();
    let mut lines = Lines(String::new());
    lines.add("approval", &approval.id);
    lines.add("action", &approval.action);
    lines.add("effect", effect);
    lines.add("workspace", &approval.workspace_id);
    lines.add("namespace", &approval.namespace);
    lines.add("requester", &approval.requested_by);
    lines.add("for", &approval.on_behalf_of);
    lines.add("reason", &approval.reason);
    lines.add_styled("state", &in_words(approval), colour(state));
    for verdict in &approval.verdicts {
        lines.add("verdict", &verdict_in_words(verdict));
    }
    if approval.recent_denials > 0 {
        let denials = format!(
            "{} of this action in this workspace, in the 24 hours before it was requested",
            approval.recent_denials
        );
        lines.add_styled("denials", &denials, colour(ApprovalState::Denied));
    }
    lines.add("requested", &lapse::moment(approval.create_time));
    lines.add("decided", &lapse::moment(approval.decide_time));
    lines.add("consumed", &lapse::moment(approval.consume_time));
    lines.add("consumer", &approval.consumed_by);
    if approval.result() != proto::Result::Unspecified {
        lines.add("result", name(approval.result().as_str_name(), "RESULT_"));
    }
    if matches!(state, ApprovalState::Pending | ApprovalState::Approved) {
        let left = lapse::left(approval.expire_time, Timestamp::now());
        lines.add("lapses", &format!("{}, in {left}", lapse::moment(approval.expire_time)));
    }
    if state == ApprovalState::Expired && !lapse::is_ahead(approval.expire_time, Timestamp::now()) {
        lines.add("lapsed", &lapse::moment(approval.expire_time));
    }
    lines.add("policy", &approval.policy_digest);
    lines.add("hash", &approval.request_hash);
    // JSON is escaped already, and its lines are its own.
    lines.write("context", context(approval)?.replace('\n', &format!("\n{INDENT}")));
    Ok(lines.0)
}

/// A state, and how far an approval that is pending has come.
fn in_words(approval: &Approval) -> String {
    let state = state_name(approval.state());
    match approval.state() {
        ApprovalState::Pending => {
            let given = approval.verdicts.len();
            format!("{state}, {given} of {} approvals", approval.approvals_required)
        }
        // What nobody had decided is given up with the history that it is of.
        ApprovalState::Expired if lapse::is_ahead(approval.expire_time, Timestamp::now()) => {
            format!("{state}: it was given up, as after a restore")
        }
        ApprovalState::Expired if approval.decide_time.is_some() => {
            format!("{state}: it was approved, and not used in time")
        }
        ApprovalState::Expired => format!("{state}: it was not decided in time"),
        _ => state.to_owned(),
    }
}

fn verdict_in_words(verdict: &Verdict) -> String {
    let decision = match verdict.decision() {
        Decision::Approve => "approved",
        Decision::Deny => "denied",
        Decision::Unspecified => "decided",
    };
    let (approver, time) = (&verdict.approver, lapse::moment(verdict.time));
    match verdict.reason.as_str() {
        "" => format!("{approver} {decision}, {time}"),
        reason => format!("{approver} {decision}, {time}: {reason}"),
    }
}

pub(super) fn state_name(state: ApprovalState) -> &'static str {
    name(state.as_str_name(), "APPROVAL_STATE_")
}

/// A value of an enum's, without what all of them begin with.
pub(super) fn name(value: &'static str, prefix: &str) -> &'static str {
    value.strip_prefix(prefix).unwrap_or(value)
}

/// An operation on one line, by its approval's short id.
pub(super) fn operation(approval: &Approval) -> String {
    let [action, workspace] = [&approval.action, &approval.workspace_id].map(|name| quoted(name));
    format!("{}  {action} in {workspace}", short(&approval.id))
}

/// What is asked for, and by whom, in the words of a question.
pub(super) fn question(approval: &Approval) -> String {
    let [action, workspace] = [&approval.action, &approval.workspace_id].map(|name| quoted(name));
    format!("{action} in {workspace}, as {} asks", requester_as(approval, quoted))
}

/// A name in a sentence: in quotes where it could be taken for more of that.
fn quoted(name: &str) -> String {
    let seen = Visible(name).to_string();
    if seen.contains(|c: char| c.is_whitespace() || ",;?\"".contains(c)) {
        return format!("\"{}\"", seen.replace('"', "\\\""));
    }
    seen
}

/// Who asks, and in whose name.
pub(super) fn requester(approval: &Approval) -> String {
    requester_as(approval, str::to_owned)
}

fn requester_as(approval: &Approval, spelt: impl Fn(&str) -> String) -> String {
    let requester = spelt(&approval.requested_by);
    match approval.on_behalf_of.as_str() {
        "" => requester,
        name => format!("{requester} for {}", spelt(name)),
    }
}

/// Checks that the hash, which a decision is bound to, is that of what is shown.
pub(super) fn bound(approval: &Approval) -> Result<(), Failure> {
    let hash = || {
        let workspace = WorkspaceId::parse(&approval.workspace_id)?;
        let action = Action::parse(&approval.action)?;
        Ok::<_, String>(RequestHash::of(&workspace, &action, &canonical(approval)?))
    };
    match hash() {
        Ok(hash) if hash.to_string() == approval.request_hash => Ok(()),
        _ => Err(Failure::new(
            Exit::Failure,
            "its hash is not that of what is shown. Do not decide it; tell whoever runs the authority",
        )),
    }
}

fn canonical(approval: &Approval) -> Result<Context, String> {
    proto::json::members(approval.context.clone().unwrap_or_default()).and_then(Context::new)
}

/// The context as it is hashed, over several lines.
fn context(approval: &Approval) -> Result<String, Failure> {
    let unreadable = |why: String| Failure::new(Exit::Failure, format!("its context {why}"));
    let canonical = canonical(approval).map_err(unreadable)?;
    let members: Map<String, Value> =
        serde_json::from_str(canonical.as_str()).map_err(|error| unreadable(error.to_string()))?;
    Ok(json::pretty_value(&Value::Object(members))?)
}

/// Labels, and what stands beside them.
struct Lines(String);

impl Lines {
    /// Leaves out what there is none of.
    fn add(&mut self, label: &str, value: &str) {
        self.add_styled(label, value, anstyle::Style::new());
    }

    fn add_styled(&mut self, label: &str, value: &str, style: anstyle::Style) {
        if value.is_empty() {
            return;
        }
        self.write(label, format_args!("{style}{}{style:#}", Visible(value)));
    }

    /// Of what is shown as it is.
    fn write(&mut self, label: &str, shown: impl Display) {
        let width = INDENT.len() - 2;
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "  {LABEL}{label:width$}{LABEL:#}{shown}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_says_how_it_ended() {
        let now = Timestamp::now().as_second();
        let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let mut approval = Approval { expire_time: time(now - 60), ..Default::default() };
        approval.set_state(ApprovalState::Expired);
        assert_eq!(in_words(&approval), "EXPIRED: it was not decided in time");
        approval.decide_time = time(now - 120);
        assert_eq!(in_words(&approval), "EXPIRED: it was approved, and not used in time");
        approval.expire_time = time(now + 60);
        assert_eq!(in_words(&approval), "EXPIRED: it was given up, as after a restore");
    }

    #[test]
    fn what_a_requester_wrote_is_no_part_of_the_question() {
        let approval = |workspace_id: &str, on_behalf_of: &str| Approval {
            action: "delete_workspace".to_owned(),
            workspace_id: workspace_id.to_owned(),
            requested_by: "tokens:backend".to_owned(),
            on_behalf_of: on_behalf_of.to_owned(),
            ..Default::default()
        };
        for (workspace, name, asked) in [
            ("w1", "", "delete_workspace in w1, as tokens:backend asks"),
            ("w1", "sam", "delete_workspace in w1, as tokens:backend for sam asks"),
            (
                "w1, as tokens:alice asks",
                "Sam S",
                r#"delete_workspace in "w1, as tokens:alice asks", as tokens:backend for "Sam S" asks"#,
            ),
            ("w\"?\n", "", r#"delete_workspace in "w\"?\n", as tokens:backend asks"#),
        ] {
            assert_eq!(question(&approval(workspace, name)), asked);
        }
    }
}
