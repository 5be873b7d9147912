//! Beginning another history, as after a restore from a backup.

use futures_util::future::try_join_all;

use super::{BATCH, Ledger};
use crate::{approval::transition::Command, error::Error, names::Namespace};

impl Ledger {
    /// Takes back every approval that is open in a namespace, then gives its log another epoch. Returns how many
    /// were taken back.
    ///
    /// What was used after the backup was made is open again in the restored database, and would be used twice;
    /// cursors of what was lost would be taken for cursors of what comes. No server may be at work meanwhile: what
    /// it lets through before this has ended is of the old history. To begin again after a failure does no harm.
    pub async fn begin_history(&self, namespace: &Namespace) -> Result<usize, Error> {
        let at_once = i64::try_from(BATCH).map_err(Error::internal)?;
        let mut taken_back = 0;
        loop {
            let open = self.shared.store.open_approvals(namespace, at_once).await?;
            let ended = open.iter().map(|id| self.command(namespace, *id, Command::Abandon));
            taken_back += try_join_all(ended).await?.len();
            if open.is_empty() && self.shared.store.begin_epoch(namespace).await? {
                return Ok(taken_back);
            }
        }
    }
}
