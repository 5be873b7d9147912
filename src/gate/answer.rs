//! Reads the authority's answer. Nothing lets through but an answer that says so, of a value that is known, about
//! exactly what was asked.

use std::time::Duration;

use super::{Denied, Fault, operation::Asked};
use crate::proto::{Approval, ApprovalState, Outcome, RequireApprovalResponse};

/// What the authority said.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Go on: with the approval that was consumed, or with none where the policy asks for none.
    Through(Option<Box<Approval>>),
    Pending(Box<Approval>),
    Denied(Denied),
}

/// What an answer to this question says; a fault if it cannot be relied upon.
pub(crate) fn read(asked: &Asked, answer: RequireApprovalResponse) -> Result<Answer, Fault> {
    let untrue = |why: &str| Fault::Untrue(why.to_owned());
    let outcome = Outcome::try_from(answer.outcome)
        .map_err(|_| Fault::Untrue(format!("outcome {} is not known", answer.outcome)))?;
    let Some(approval) = answer.approval.map(Box::new) else {
        return match outcome {
            Outcome::NotRequired => Ok(Answer::Through(None)),
            _ => Err(untrue("it comes without its approval")),
        };
    };
    if !is_about(&approval, asked) {
        return Err(untrue("its approval is for another operation"));
    }
    match outcome {
        Outcome::Approved if approval.state() != ApprovalState::Consumed => {
            Err(untrue("its approval was not consumed"))
        }
        // A denial is shown to whoever asks for the same; what lets through is one's own.
        Outcome::Approved if approval.on_behalf_of != asked.message.on_behalf_of => {
            Err(untrue("its approval was requested in another's name"))
        }
        Outcome::Approved => Ok(Answer::Through(Some(approval))),
        Outcome::Pending => Ok(Answer::Pending(approval)),
        Outcome::Denied => {
            let retry_after = answer.retry_after.and_then(|after| Duration::try_from(after).ok());
            Ok(Answer::Denied(Denied { approval, retry_after: retry_after.unwrap_or_default() }))
        }
        Outcome::NotRequired => Err(untrue("it needs no approval and comes with one")),
        Outcome::Unspecified => Err(untrue("it has no outcome")),
    }
}

fn is_about(approval: &Approval, asked: &Asked) -> bool {
    approval.namespace == asked.namespace.as_str()
        && approval.workspace_id == asked.message.workspace_id
        && approval.action == asked.message.action
        && approval.request_hash == asked.hash.to_string()
        && !approval.id.is_empty()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gate::Operation;

    fn asked() -> Asked {
        let operation = Operation::new("w1", "delete_workspace").context(json!({"force": true}));
        operation.on_behalf_of("sam").ask().expect("good")
    }

    /// An answer that lets through, once changed.
    fn answer(
        change: impl FnOnce(&mut RequireApprovalResponse, &mut Approval),
    ) -> Result<Answer, Fault> {
        let asked = asked();
        let mut approval = Approval {
            id: "0198c0de-0000-7000-8000-000000000000".to_owned(),
            namespace: "default".to_owned(),
            workspace_id: "w1".to_owned(),
            action: "delete_workspace".to_owned(),
            request_hash: asked.hash.to_string(),
            on_behalf_of: "sam".to_owned(),
            state: ApprovalState::Consumed.into(),
            ..Default::default()
        };
        let mut answer =
            RequireApprovalResponse { outcome: Outcome::Approved.into(), ..Default::default() };
        change(&mut answer, &mut approval);
        // A test that wants none says so by taking the id away.
        answer.approval = (approval != Approval::default()).then_some(approval);
        read(&asked, answer)
    }

    #[test]
    fn an_answer_to_what_was_asked_is_believed() {
        assert!(matches!(answer(|_, _| {}), Ok(Answer::Through(Some(_)))));
        let again = answer(|answer, _| answer.replayed = true);
        assert!(matches!(again, Ok(Answer::Through(Some(_)))), "the same attempt asked again");
        let free = answer(|answer, approval| {
            answer.outcome = Outcome::NotRequired.into();
            *approval = Approval::default();
        });
        assert!(matches!(free, Ok(Answer::Through(None))));
        let held = answer(|answer, _| answer.outcome = Outcome::Pending.into());
        assert!(matches!(held, Ok(Answer::Pending(_))));
        let denied = answer(|answer, approval| {
            answer.outcome = Outcome::Denied.into();
            answer.retry_after = Some(prost_types::Duration { seconds: 900, nanos: 0 });
            approval.on_behalf_of = "somebody else".to_owned();
        });
        let Ok(Answer::Denied(denied)) = denied else { panic!("{denied:?}") };
        assert_eq!(denied.retry_after, Duration::from_secs(900));
    }

    #[test]
    fn whatever_else_an_answer_says_nobody_is_let_through() {
        type Change = fn(&mut RequireApprovalResponse, &mut Approval);
        let changes: &[(&str, Change)] = &[
            ("no outcome", |answer, _| answer.outcome = 0),
            ("an outcome of a time to come", |answer, _| answer.outcome = 5),
            ("a negative outcome", |answer, _| answer.outcome = -1),
            ("no approval", |_, approval| *approval = Approval::default()),
            ("no outcome and no approval", |answer, approval| {
                answer.outcome = 0;
                *approval = Approval::default();
            }),
            ("none required, with an approval", |answer, _| {
                answer.outcome = Outcome::NotRequired.into();
            }),
            ("pending, without it", |answer, approval| {
                answer.outcome = Outcome::Pending.into();
                *approval = Approval::default();
            }),
            ("no id", |_, approval| approval.id.clear()),
            ("another namespace", |_, approval| approval.namespace = "acme".to_owned()),
            ("no namespace", |_, approval| approval.namespace.clear()),
            ("another workspace", |_, approval| approval.workspace_id = "w2".to_owned()),
            ("another action", |_, approval| approval.action = "secret_write".to_owned()),
            ("another context", |_, approval| {
                let other = Operation::new("w1", "delete_workspace").ask().expect("good");
                approval.request_hash = other.hash.to_string();
            }),
            ("no hash", |_, approval| approval.request_hash.clear()),
            ("another's name", |_, approval| approval.on_behalf_of = "alex".to_owned()),
            ("nobody's name", |_, approval| approval.on_behalf_of.clear()),
            ("still pending", |_, approval| approval.state = ApprovalState::Pending.into()),
            ("approved and unused", |_, approval| approval.state = ApprovalState::Approved.into()),
            ("a state of a time to come", |_, approval| approval.state = 99),
        ];
        for (what, change) in changes {
            let read = answer(change);
            assert!(matches!(read, Err(Fault::Untrue(_))), "{what}: {read:?}");
        }
    }
}
