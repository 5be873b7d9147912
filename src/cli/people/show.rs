//! `show`: all there is to know of an approval.

use clap::Args;

use super::{connection::Common, failure::Failure, output::Output, shown, which::Which};
use crate::proto::{ApprovalState, GetApprovalResponse};

#[derive(Args)]
#[command(after_help = "\
Examples:
  approval-authority show 2233aabb
  approval-authority show 0198c0de-0000-7abc-8def-00112233aabb --output json")]
pub(in crate::cli) struct Show {
    /// The approval: its id, or the beginning or end of it.
    #[arg(value_parser = Which::parse)]
    id: Which,
    #[command(flatten)]
    common: Common,
}

impl Show {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let Common { output, connection } = self.common;
        let authority = connection.open().await?;
        let id =
            authority.find(&self.id, &[ApprovalState::Pending, ApprovalState::Approved]).await?;
        let approval = authority.get(&id).await?;
        let words = match output {
            Output::Text => shown::whole(&approval, &authority.effect_of(&approval.action).await?)?,
            Output::Json => String::new(),
        };
        let bound = shown::bound(&approval);
        output.print(&GetApprovalResponse { approval: Some(approval) }, || words)?;
        bound
    }
}
