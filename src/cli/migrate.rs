//! `migrate`: the database's schema.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};

use super::serve::store;
use crate::{
    config::Config,
    ledger::Ledger,
    store::role::{ROLE, RoleState},
};

pub(super) async fn run(config: PathBuf, status: bool, new_history: bool) -> Result<()> {
    let config = Config::load(&config).map_err(|why| anyhow!(why))?;
    let store = store(&config)?;
    if !status {
        for name in store.migrate().await? {
            println!("applied {name}");
        }
    }
    for migration in store.migrations().await? {
        let state = if migration.applied { "applied" } else { "missing" };
        println!("{state:8} {}", migration.name);
    }
    let role = store.role_state().await?;
    match &role {
        RoleState::AsListed => {
            println!("granted  role {ROLE}, for the service's login to be a member of");
        }
        RoleState::Missing => println!("missing  role {ROLE}"),
        RoleState::Differs(points) => println!("differs  role {ROLE}: {}", points.join("; ")),
    }
    if new_history {
        let ledger = Ledger::new(store.clone());
        for namespace in store.namespaces().await? {
            let taken_back = ledger.begin_history(&namespace).await?;
            println!("{namespace}: a new history; open approvals taken back: {taken_back}");
        }
    }
    if !status && role != RoleState::AsListed {
        bail!("the role {ROLE} has been granted what it needs, and is more than that");
    }
    Ok(())
}
