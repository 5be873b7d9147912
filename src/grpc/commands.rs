//! Commands on an approval that exists: who may give them, and what they are.

use std::sync::Arc;

use uuid::Uuid;

use super::{approvals::ApprovalService, convert, fields::Fields};
use crate::{
    approval::{Approval, Decision, Operation, transition::Command},
    auth::{
        Caller,
        permissions::{Grant, SIGHT, refusal},
    },
    error::Error,
    names::{Namespace, Text},
    proto,
};

impl ApprovalService {
    pub(super) async fn decide(
        self: Arc<Self>,
        caller: Caller,
        request: proto::DecideRequest,
    ) -> Result<proto::DecideResponse, Error> {
        let mut fields = Fields::default();
        let namespace = fields.namespace(&request.namespace);
        let id = fields.approval_id(&request.approval_id);
        let decision = fields.decision(request.decision);
        let reason = match decision {
            Some(Decision::Deny) => {
                fields.required_text("reason", &request.reason, "must say why, to deny")
            }
            Some(Decision::Approve) | None => fields.check("reason", Text::parse(&request.reason)),
        };
        let request_hash = fields.request_hash(&request.request_hash);
        let (Some(namespace), Some(id), Some(decision), Some(reason), Some(request_hash)) =
            (namespace, id, decision, reason, request_hash)
        else {
            return Err(fields.into_error());
        };
        self.open(&caller, &namespace, id).await?;
        let approver = caller.principal;
        let command = Command::Decide { approver, decision, reason, request_hash };
        let decided = self.ledger.command(&namespace, id, command).await?;
        Ok(proto::DecideResponse { approval: Some(convert::approval(&decided)?) })
    }

    pub(super) async fn withdraw(
        self: Arc<Self>,
        caller: Caller,
        request: proto::WithdrawApprovalRequest,
    ) -> Result<proto::WithdrawApprovalResponse, Error> {
        let mut fields = Fields::default();
        let namespace = fields.namespace(&request.namespace);
        let id = fields.approval_id(&request.approval_id);
        let reason = fields.check("reason", Text::parse(&request.reason));
        let (Some(namespace), Some(id), Some(reason)) = (namespace, id, reason) else {
            return Err(fields.into_error());
        };
        self.open(&caller, &namespace, id).await?;
        let command = Command::Withdraw { requester: caller.principal, reason };
        let withdrawn = self.ledger.command(&namespace, id, command).await?;
        Ok(proto::WithdrawApprovalResponse { approval: Some(convert::approval(&withdrawn)?) })
    }

    pub(super) async fn revoke(
        self: Arc<Self>,
        caller: Caller,
        request: proto::RevokeApprovalRequest,
    ) -> Result<proto::RevokeApprovalResponse, Error> {
        let mut fields = Fields::default();
        let namespace = fields.namespace(&request.namespace);
        let id = fields.approval_id(&request.approval_id);
        let reason = fields.required_text("reason", &request.reason, "must say why");
        let (Some(namespace), Some(id), Some(reason)) = (namespace, id, reason) else {
            return Err(fields.into_error());
        };
        self.open(&caller, &namespace, id).await?;
        let command = Command::Revoke { approver: caller.principal, reason };
        let revoked = self.ledger.command(&namespace, id, command).await?;
        Ok(proto::RevokeApprovalResponse { approval: Some(convert::approval(&revoked)?) })
    }

    pub(super) async fn report(
        self: Arc<Self>,
        caller: Caller,
        request: proto::ReportResultRequest,
    ) -> Result<proto::ReportResultResponse, Error> {
        let mut fields = Fields::default();
        let namespace = fields.namespace(&request.namespace);
        let id = fields.approval_id(&request.approval_id);
        let result = fields.result(request.result);
        let detail = fields.check("detail", Text::parse(&request.detail));
        let (Some(namespace), Some(id), Some(result), Some(detail)) =
            (namespace, id, result, detail)
        else {
            return Err(fields.into_error());
        };
        self.open(&caller, &namespace, id).await?;
        let command = Command::Report { consumer: caller.principal, result, detail };
        let reported = self.ledger.command(&namespace, id, command).await?;
        Ok(proto::ReportResultResponse { approval: Some(convert::approval(&reported)?) })
    }

    /// An approval that the caller may see; one that it may not see is not there.
    pub(super) async fn visible(
        &self,
        caller: &Caller,
        namespace: &Namespace,
        id: Uuid,
    ) -> Result<Approval, Error> {
        let approval = self.store.approval(namespace, id).await?.ok_or(Error::ApprovalNotFound)?;
        let operation = &approval.request.operation;
        if self.opens(SIGHT, caller, namespace, operation).await? {
            return Ok(approval);
        }
        Err(Error::ApprovalNotFound)
    }

    /// Checks that the call is open to the caller for an approval, as far as roles go.
    async fn open(&self, caller: &Caller, namespace: &Namespace, id: Uuid) -> Result<(), Error> {
        let approval = self.visible(caller, namespace, id).await?;
        let operation = &approval.request.operation;
        if self.opens(caller.grants, caller, namespace, operation).await? {
            return Ok(());
        }
        Err(refusal(caller.grants))
    }

    async fn opens(
        &self,
        grants: &[Grant],
        caller: &Caller,
        namespace: &Namespace,
        operation: &Operation,
    ) -> Result<bool, Error> {
        match caller.scope_about(grants, namespace, operation) {
            Some(scope) => scope.holds_for(&self.store, namespace, &operation.workspace_id).await,
            None => Ok(false),
        }
    }
}
