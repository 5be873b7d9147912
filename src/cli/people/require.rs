//! `require`: asks the gate, for scripts and to try things out.

use std::{fs, time::Duration};

use clap::{Args, builder::NonEmptyStringValueParser};
use serde_json::{Value, error::Category};
use uuid::Uuid;

use super::{
    connection::{Common, PATIENCE},
    failure::{Exit, Failure},
    lapse,
    shown::operation,
};
use crate::{
    duration,
    gate::{
        Operation,
        answer::{self, Answer},
    },
    json,
    proto::{Approval, RequireApprovalResponse},
    visible::Visible,
};

#[derive(Args)]
#[command(after_help = "\
The exit code is 0 only if the operation may be executed, now and once: 3 while people have not decided, 5 if they said
no. See the man page, or the README, for the others.

With --idempotency-key it is 0 again for the same attempt, for ten minutes, if its answer was lost: repeat only what you
know was not executed. As JSON, such an answer is \"replayed\".

Examples:
  approval-authority require w1 delete_workspace --reason \"nobody has used it since May\" --wait 30s
  approval-authority require w1 secret_write --context '{\"name\":\"db\"}' --on-behalf-of sam@example.com
  approval-authority require w1 delete_workspace --context @parameters.json && ./delete w1")]
pub(in crate::cli) struct Require {
    /// The workspace that the operation acts in.
    workspace: String,
    /// What it does there.
    action: String,
    /// Why, for the approver to read.
    #[arg(long, short, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Its parameters: a JSON object, or a file that holds one.
    #[arg(long, value_name = "JSON|@FILE", value_parser = context)]
    context: Option<Value>,
    /// The person or agent in whose name you ask; they may not approve.
    #[arg(long, value_name = "NAME")]
    on_behalf_of: Option<String>,
    /// How long to wait for a decision, as in 30s; 60s at most.
    #[arg(long, value_name = "DURATION", value_parser = wait, default_value = "0s", hide_default_value = true)]
    wait: Duration,
    /// Names this attempt, so that it can be repeated if the answer is lost [default: a new one]
    #[arg(long, value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    idempotency_key: Option<String>,
    #[command(flatten)]
    common: Common,
}

fn context(text: &str) -> Result<Value, String> {
    let read = |file: &str| fs::read_to_string(file).map_err(|error| error.to_string());
    let text = text.strip_prefix('@').map_or_else(|| Ok(text.to_owned()), read)?;
    json::parse(text.as_bytes()).map_err(|error| match error.classify() {
        Category::Data => error.to_string(),
        _ => format!("is no JSON: {error}"),
    })
}

fn wait(text: &str) -> Result<Duration, String> {
    let wait = Duration::try_from(duration::parse(text)?).map_err(|_| "must not be negative")?;
    if wait > Duration::from_secs(60) { Err("may be 60s at most".to_owned()) } else { Ok(wait) }
}

impl Require {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let wait = self.wait;
        let settings = |gate: crate::gate::Builder| gate.deadline(wait + PATIENCE).wait(wait);
        let Common { output, connection } = self.common;
        let authority = connection.open_with(settings).await?;
        let mut operation = Operation::new(self.workspace, self.action).reason(self.reason);
        if let Some(context) = self.context {
            operation = operation.context(context);
        }
        if let Some(name) = self.on_behalf_of {
            operation = operation.on_behalf_of(name);
        }
        if !authority.namespace.is_empty() {
            operation = operation.namespace(authority.namespace);
        }
        let asked = operation.ask()?;
        // An attempt of this run's alone has executed nothing yet, however often it had to be asked about.
        let is_another_run = self.idempotency_key.is_some();
        let key = self.idempotency_key.unwrap_or_else(|| Uuid::new_v4().to_string());
        let repeat = format!("repeat it with --idempotency-key {key}");
        let given = authority.gate.put(&asked, &key).await.map_err(|fault| {
            let failure = Failure::from(fault).at(&authority.server);
            match failure.exit {
                // It may have been let through, and nobody but this attempt can find out.
                Exit::TryAgain => failure.and(&repeat),
                _ => failure,
            }
        })?;
        let replayed = given.replayed && is_another_run;
        let (exit, words) = told(answer::read(&asked, given.clone())?, replayed);
        output.print::<RequireApprovalResponse>(&given, || words).map_err(|error| {
            let why = format!("there is an answer, and it could not be printed: {error}");
            Failure::new(Exit::Failure, why).and(&repeat)
        })?;
        exit.map_or(Ok(()), |exit| Err(Failure::told(exit)))
    }
}

/// What the answer means; with no exit code of its own if the operation may be executed.
fn told(answer: Answer, replayed: bool) -> (Option<Exit>, String) {
    let through = |approval: &Approval| format!("let through: {}", operation(approval));
    match answer {
        Answer::Through(None) => (None, "let through: it needs no approval\n".to_owned()),
        Answer::Through(Some(approval)) if replayed => {
            let already = "this attempt was let through before, and may have been executed";
            (None, format!("{}; {already}\n", through(&approval)))
        }
        Answer::Through(Some(approval)) => {
            (None, format!("{}; execute it now, once\n", through(&approval)))
        }
        Answer::Pending(approval) => {
            let until = lapse::moment(approval.expire_time);
            let (what, id) = (operation(&approval), &approval.id);
            let words = format!("held: {what}; people have until {until} to decide {id}\n");
            (Some(Exit::Held), words)
        }
        Answer::Denied(denied) => {
            let (what, again) = (operation(&denied.approval), lapse::span(denied.retry_after));
            let why = match denied.reason() {
                "" => String::new(),
                reason => format!(": {}", Visible(reason)),
            };
            let words = format!("denied: {what}{why}; it can be asked for again in {again}\n");
            (Some(Exit::Refused), words)
        }
    }
}
