//! `approve` and `deny`. A decision is bound to what the person was shown: on a terminal all of it is shown and asked
//! about; without one, the person says by its hash what they have looked at. Nothing is decided blind.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Args;
use jiff::Timestamp;
use nix::sys::termios::{FlushArg, tcflush};

use super::{
    connection::{Authority, Common, carried},
    failure::{Exit, Failure},
    fold::fitted,
    lapse, shown,
    which::{Which, each},
};
use crate::{
    digest::RequestHash,
    proto::{Approval, ApprovalState, DecideRequest, DecideResponse, Decision},
};

#[derive(Args)]
#[command(after_help = "\
On a terminal it shows all of what you approve, and asks. Without one, or with --request-hash, it asks nothing:
`show` prints the hash of what you have looked at, and what has another is not approved.

Of several, each is reported; the exit code is that of the first that failed.

Examples:
  approval-authority approve 2233aabb
  approval-authority approve 2233aabb 44ccddee --reason \"agreed with Sam\"
  approval-authority approve 2233aabb --request-hash 31d7f0f8...")]
pub(in crate::cli) struct Approve {
    #[command(flatten)]
    which: Decided,
    /// Why, for the record.
    #[arg(long, short, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
#[command(after_help = "\
On a terminal it shows all of what you deny, and asks. Without one, or with --request-hash, it asks nothing:
`show` prints the hash of what you have looked at, and what has another is not denied.

Of several, each is reported; the exit code is that of the first that failed.

Examples:
  approval-authority deny 2233aabb --reason \"we still need it\"
  approval-authority deny 2233aabb --reason \"we still need it\" --request-hash 31d7f0f8...")]
pub(in crate::cli) struct Deny {
    #[command(flatten)]
    which: Decided,
    /// Why, for whoever asked.
    #[arg(long, short, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    common: Common,
}

/// What is decided.
#[derive(Args)]
struct Decided {
    /// The approvals: of each its id, or the beginning or end of it.
    #[arg(required = true, value_name = "ID", value_parser = Which::parse)]
    ids: Vec<Which>,
    /// The hash of what you have looked at, for each id in turn.
    #[arg(long = "request-hash", value_name = "HASH", value_parser = RequestHash::parse)]
    hashes: Vec<RequestHash>,
}

/// A verdict that is about to be given.
struct Verdict {
    decision: Decision,
    reason: String,
    authority: Authority,
}

impl Approve {
    pub(super) async fn run(self) -> Result<(), Failure> {
        give(Decision::Approve, self.which, self.reason, self.common).await
    }
}

impl Deny {
    pub(super) async fn run(self) -> Result<(), Failure> {
        give(Decision::Deny, self.which, self.reason, self.common).await
    }
}

async fn give(
    decision: Decision,
    which: Decided,
    reason: String,
    common: Common,
) -> Result<(), Failure> {
    let Decided { ids, hashes } = which;
    if hashes.is_empty() && !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        let why = "there is no terminal to ask you on: look at it with `show`, and repeat its \
                   hash with --request-hash";
        return Err(Failure::new(Exit::Usage, why));
    }
    if !hashes.is_empty() && hashes.len() != ids.len() {
        let (ids, hashes) = (ids.len(), hashes.len());
        let why = format!("{hashes} --request-hash for {ids} ids: give one for each, in turn");
        return Err(Failure::new(Exit::Usage, why));
    }
    let Common { output, connection } = common;
    let verdict = Verdict { decision, reason, authority: connection.open().await? };
    each(&ids, async |index, which| {
        let id = verdict.authority.find(which, &[ApprovalState::Pending]).await?;
        let found = verdict.authority.get(&id).await?;
        let hash = match hashes.get(index) {
            Some(hash) => hash.to_string(),
            None => verdict.confirmed(&found).await?,
        };
        let approval = verdict.send(id, hash).await?;
        let state = approval.state();
        let words = match approval.version == found.version {
            true => repeated(decision, &approval),
            false => in_words(&approval),
        };
        output.print(&DecideResponse { approval: Some(approval) }, || words)?;
        if is_void(decision, state) {
            let state = shown::state_name(state);
            return Err(Failure::new(Exit::MovedOn, format!("it is {state} since")));
        }
        Ok(())
    })
    .await
}

impl Verdict {
    /// Shows all of what is decided and asks; the hash of what was shown, if the answer is yes.
    async fn confirmed(&self, approval: &Approval) -> Result<String, Failure> {
        let effect = self.authority.effect_of(&approval.action).await?;
        let mut terminal = anstream::stderr().lock();
        let show = |text: &str| fitted(text, io::stderr());
        writeln!(terminal, "{}", show(&shown::whole(approval, &effect)?))?;
        shown::bound(approval)?;
        if approval.state() != ApprovalState::Pending {
            let state = shown::state_name(approval.state());
            return Err(Failure::new(Exit::MovedOn, format!("it is {state} already")));
        }
        // What was typed before this could be read is no answer to it.
        tcflush(io::stdin(), FlushArg::TCIFLUSH).map_err(io::Error::from)?;
        let (verb, no) = match self.decision {
            Decision::Approve => ("Approve", "not approved"),
            _ => ("Deny", "not denied"),
        };
        // What it begins with may have been scrolled away by a long context.
        let question = format!("{verb} {}? [y/N] ", shown::question(approval));
        write!(terminal, "{}", show(&question))?;
        terminal.flush()?;
        let mut answer = String::new();
        if io::stdin().lock().read_line(&mut answer)? == 0 {
            writeln!(terminal)?;
        }
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(approval.request_hash.clone()),
            _ => Err(Failure::new(Exit::Failure, no)),
        }
    }

    async fn send(&self, approval_id: String, request_hash: String) -> Result<Approval, Failure> {
        let request = DecideRequest {
            namespace: self.authority.namespace.clone(),
            approval_id,
            decision: self.decision.into(),
            reason: self.reason.clone(),
            request_hash,
        };
        let decided = self
            .authority
            .ask(request, async |mut approvals, request| approvals.decide(request).await);
        carried(decided.await?.approval)
    }
}

/// Whether an approval is in a state in which this verdict, that was given before, is worth nothing any more.
fn is_void(decision: Decision, state: ApprovalState) -> bool {
    match state {
        ApprovalState::Pending | ApprovalState::Approved | ApprovalState::Consumed => false,
        ApprovalState::Denied => decision != Decision::Deny,
        ApprovalState::Unspecified
        | ApprovalState::Expired
        | ApprovalState::Withdrawn
        | ApprovalState::Revoked => true,
    }
}

/// Nothing has changed: the same person has decided the same before.
fn repeated(decision: Decision, approval: &Approval) -> String {
    let what = shown::operation(approval);
    match (decision, approval.state()) {
        (Decision::Approve, ApprovalState::Pending) => {
            format!("approved by you before: {what}; {} more must approve\n", needed(approval))
        }
        (Decision::Deny, ApprovalState::Denied) => {
            format!("denied by you before: {what}; nothing was changed\n")
        }
        _ => in_words(approval),
    }
}

/// So many more must approve.
fn needed(approval: &Approval) -> i32 {
    let given = i32::try_from(approval.verdicts.len()).unwrap_or(i32::MAX);
    approval.approvals_required.saturating_sub(given)
}

fn in_words(approval: &Approval) -> String {
    let what = shown::operation(approval);
    match approval.state() {
        ApprovalState::Pending => {
            format!("recorded: {what}; {} more must approve\n", needed(approval))
        }
        ApprovalState::Approved => {
            let left = lapse::left(approval.expire_time, Timestamp::now());
            format!("approved: {what}; it may be executed once, within {left}\n")
        }
        state => format!("{}: {what}\n", shown::state_name(state).to_lowercase()),
    }
}
