//! `revoke` and `withdraw`: what was given, or asked for, is taken back.

use clap::Args;

use super::{
    connection::{Authority, Common, carried},
    failure::{Exit, Failure},
    shown,
    which::{Which, each},
};
use crate::proto::{
    Approval, ApprovalState, RevokeApprovalRequest, RevokeApprovalResponse,
    WithdrawApprovalRequest, WithdrawApprovalResponse,
};

#[derive(Args)]
#[command(after_help = "\
Of several, each is reported; the exit code is that of the first that failed.

Examples:
  approval-authority revoke 2233aabb --reason \"approved the wrong one\"")]
pub(in crate::cli) struct Revoke {
    /// The approvals: of each its id, or the beginning or end of it.
    #[arg(required = true, value_name = "ID", value_parser = Which::parse)]
    ids: Vec<Which>,
    /// Why, for the record in the database: nobody is told.
    #[arg(long, short, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
#[command(after_help = "\
Of several, each is reported; the exit code is that of the first that failed.

Examples:
  approval-authority withdraw 0198c0de-0000-7abc-8def-00112233aabb --reason \"no longer needed\"")]
pub(in crate::cli) struct Withdraw {
    /// The approvals: of each its id; those who may list approvals can give the beginning or end of it.
    #[arg(required = true, value_name = "ID", value_parser = Which::parse)]
    ids: Vec<Which>,
    /// Why, for the record in the database: nobody is told.
    #[arg(long, short, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    common: Common,
}

impl Revoke {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let Common { output, connection } = self.common;
        let authority = connection.open().await?;
        each(&self.ids, async |_, which| {
            let request = RevokeApprovalRequest {
                namespace: authority.namespace.clone(),
                approval_id: authority.find(which, &[ApprovalState::Approved]).await?,
                reason: self.reason.clone(),
            };
            let id = request.approval_id.clone();
            let revoked = authority.ask(request, async |mut approvals, request| {
                approvals.revoke_approval(request).await
            });
            let revoked = revoked.await.map(|answer| answer.approval);
            let (approval, how) =
                authority.taken_back(&id, revoked, ApprovalState::Revoked).await?;
            let words = format!("{how}: {}\n", shown::operation(&approval));
            Ok(output.print(&RevokeApprovalResponse { approval: Some(approval) }, || words)?)
        })
        .await
    }
}

impl Withdraw {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let Common { output, connection } = self.common;
        let authority = connection.open().await?;
        each(&self.ids, async |_, which| {
            let request = WithdrawApprovalRequest {
                namespace: authority.namespace.clone(),
                approval_id: authority.find(which, &[ApprovalState::Pending]).await?,
                reason: self.reason.clone(),
            };
            let id = request.approval_id.clone();
            let withdrawn = authority.ask(request, async |mut approvals, request| {
                approvals.withdraw_approval(request).await
            });
            let withdrawn = withdrawn.await.map(|answer| answer.approval);
            let (approval, how) =
                authority.taken_back(&id, withdrawn, ApprovalState::Withdrawn).await?;
            let words = format!("{how}: {}\n", shown::operation(&approval));
            Ok(output.print(&WithdrawApprovalResponse { approval: Some(approval) }, || words)?)
        })
        .await
    }
}

impl Authority {
    /// The approval as it was taken back, and whether it is so by this call. The answer to a call can be lost, and the call that
    /// is made again is refused then, since the first has done it already: what counts is that it is done.
    async fn taken_back(
        &self,
        id: &str,
        called: Result<Option<Approval>, Failure>,
        state: ApprovalState,
    ) -> Result<(Approval, String), Failure> {
        let how = shown::state_name(state).to_lowercase();
        match called {
            Ok(approval) => Ok((carried(approval)?, how)),
            Err(failure) if failure.exit == Exit::MovedOn => match self.get(id).await {
                Ok(approval) if approval.state() == state => {
                    Ok((approval, format!("{how} already")))
                }
                Ok(_) | Err(_) => Err(failure),
            },
            Err(failure) if failure.exit == Exit::Refused && state == ApprovalState::Withdrawn => {
                Err(failure
                    .and("only whoever asked can withdraw it; whoever may decide can deny it"))
            }
            Err(failure) => Err(failure),
        }
    }
}
