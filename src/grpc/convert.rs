//! The domain's values as the contract's messages.

use jiff::{SignedDuration, Timestamp};
use prost_types::{Duration as ProtoDuration, Struct, Timestamp as ProtoTimestamp};

use crate::{
    approval::{Approval, Decision, Event, EventKind, OperationResult, State, Verdict, gate::Gate},
    digest::Context,
    error::Error,
    policy::{Policy, Rule, UnlistedActions},
    proto,
    store::workspaces::Workspace,
};

/// An approval. Fails where what is stored is no JSON, which is a fault of ours.
pub fn approval(approval: &Approval) -> Result<proto::Approval, Error> {
    let (request, standing) = (&approval.request, &approval.standing);
    let operation = &request.operation;
    Ok(proto::Approval {
        id: request.id.to_string(),
        namespace: request.namespace.to_string(),
        workspace_id: operation.workspace_id.to_string(),
        action: operation.action.to_string(),
        reason: request.reason.to_string(),
        context: Some(context(&operation.context)?),
        request_hash: operation.request_hash.to_string(),
        state: state(standing.state).into(),
        requested_by: operation.requested_by.to_string(),
        on_behalf_of: operation.on_behalf_of.as_ref().map(ToString::to_string).unwrap_or_default(),
        approvals_required: request.approvals_required.cast_signed(),
        verdicts: standing.verdicts.iter().map(verdict).collect(),
        create_time: Some(timestamp(request.create_time)),
        expire_time: Some(timestamp(standing.expire_time)),
        decide_time: standing.decide_time.map(timestamp),
        consume_time: standing.consumption.as_ref().map(|c| timestamp(c.time)),
        consumed_by: standing.consumption.as_ref().map(|c| c.by.to_string()).unwrap_or_default(),
        result: standing.result.map_or(proto::Result::Unspecified, result).into(),
        policy_digest: request.policy_digest.to_string(),
        recent_denials: request.recent_denials.cast_signed(),
        version: standing.version.cast_signed(),
    })
}

/// The gate's answer.
pub fn gate(gate: &Gate) -> Result<proto::RequireApprovalResponse, Error> {
    let (outcome, about, retry_after, replayed) = match gate {
        Gate::Approved { approval, replayed } => {
            (proto::Outcome::Approved, approval, None, *replayed)
        }
        Gate::Pending(approval) => (proto::Outcome::Pending, approval, None, false),
        Gate::Denied { approval, retry_after } => {
            (proto::Outcome::Denied, approval, Some(duration(*retry_after)), false)
        }
    };
    Ok(proto::RequireApprovalResponse {
        outcome: outcome.into(),
        approval: Some(approval(about)?),
        retry_after,
        replayed,
    })
}

/// An event at its revision.
pub fn event(revision: i64, event: &Event) -> Result<proto::ApprovalEvent, Error> {
    Ok(proto::ApprovalEvent {
        revision,
        r#type: event_type(event.kind).into(),
        workspace_id: event.workspace_id.to_string(),
        approval: Some(approval(&event.approval)?),
        actor: event.actor.as_ref().map(ToString::to_string).unwrap_or_default(),
        time: Some(timestamp(event.time)),
    })
}

/// The policy in force.
pub fn policy(policy: &Policy) -> proto::GetPolicyResponse {
    let unlisted_actions = match policy.unlisted_actions() {
        UnlistedActions::Allow => proto::UnlistedActions::Allow,
        UnlistedActions::Gate => proto::UnlistedActions::Gate,
        UnlistedActions::Refuse => proto::UnlistedActions::Refuse,
    };
    proto::GetPolicyResponse {
        digest: policy.digest().to_owned(),
        actions: policy.actions().iter().map(|(name, rule)| action(name.as_str(), rule)).collect(),
        unlisted_actions: unlisted_actions.into(),
    }
}

/// A workspace.
pub fn workspace(workspace: &Workspace) -> proto::Workspace {
    proto::Workspace {
        namespace: workspace.namespace.to_string(),
        id: workspace.id.to_string(),
        parent_id: workspace.parent_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        display_name: workspace.display_name.clone(),
    }
}

/// What happened.
pub fn event_type(kind: EventKind) -> proto::EventType {
    match kind {
        EventKind::Requested => proto::EventType::Requested,
        EventKind::Escalated => proto::EventType::Escalated,
        EventKind::Reviewed => proto::EventType::Reviewed,
        EventKind::Approved => proto::EventType::Approved,
        EventKind::Denied => proto::EventType::Denied,
        EventKind::Consumed => proto::EventType::Consumed,
        EventKind::Expired => proto::EventType::Expired,
        EventKind::Withdrawn => proto::EventType::Withdrawn,
        EventKind::Revoked => proto::EventType::Revoked,
        EventKind::ResultReported => proto::EventType::ResultReported,
    }
}

fn state(state: State) -> proto::ApprovalState {
    match state {
        State::Pending => proto::ApprovalState::Pending,
        State::Approved => proto::ApprovalState::Approved,
        State::Denied => proto::ApprovalState::Denied,
        State::Consumed => proto::ApprovalState::Consumed,
        State::Expired => proto::ApprovalState::Expired,
        State::Withdrawn => proto::ApprovalState::Withdrawn,
        State::Revoked => proto::ApprovalState::Revoked,
    }
}

fn result(result: OperationResult) -> proto::Result {
    match result {
        OperationResult::Succeeded => proto::Result::Succeeded,
        OperationResult::Failed => proto::Result::Failed,
        OperationResult::Unknown => proto::Result::Unknown,
    }
}

fn verdict(verdict: &Verdict) -> proto::Verdict {
    let decision = match verdict.decision {
        Decision::Approve => proto::Decision::Approve,
        Decision::Deny => proto::Decision::Deny,
    };
    proto::Verdict {
        approver: verdict.approver.to_string(),
        decision: decision.into(),
        reason: verdict.reason.to_string(),
        time: Some(timestamp(verdict.time)),
    }
}

fn action(name: &str, rule: &Rule) -> proto::ActionPolicy {
    proto::ActionPolicy {
        action: name.to_owned(),
        description: rule.description.clone(),
        approvals_required: rule.approvals_required.cast_signed(),
        pending_ttl: Some(duration(rule.pending_ttl)),
        approved_ttl: Some(duration(rule.approved_ttl)),
        deny_cooldown: Some(duration(rule.deny_cooldown)),
        escalate_after: rule.escalate_after.iter().copied().map(duration).collect(),
        max_pending: rule.max_pending.cast_signed(),
    }
}

fn timestamp(time: Timestamp) -> ProtoTimestamp {
    ProtoTimestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

fn duration(duration: SignedDuration) -> ProtoDuration {
    ProtoDuration { seconds: duration.as_secs(), nanos: duration.subsec_nanos() }
}

fn context(context: &Context) -> Result<Struct, Error> {
    serde_json::from_str(context.as_str()).map(proto::json::object).map_err(Error::internal)
}

#[cfg(test)]
pub(super) mod fuzz;
