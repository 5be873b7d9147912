//! `migrate`: the database's schema.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};

use super::serve::store;
use crate::{
    config::Config,
    ledger::Ledger,
    store::{
        Failure, Store,
        role::{ROLE, RoleState},
        schema::MigrationState,
    },
};

pub(super) async fn run(config: PathBuf, status: bool, new_history: bool) -> Result<()> {
    let config = Config::load(&config).map_err(|why| anyhow!(why))?;
    let done = migrate(&store(&config)?, status, new_history).await;
    done.map_err(|error| match error.downcast_ref() {
        Some(Failure::Denied(_)) => error.context("database.url must be the schema owner's here"),
        Some(_) | None => error,
    })
}

async fn migrate(store: &Store, status: bool, new_history: bool) -> Result<()> {
    // Before there are sessions of this program's.
    let servers = if new_history { store.sessions_of_servers().await? } else { Vec::new() };
    let mut is_whole = true;
    if !status {
        for name in store.migrate().await? {
            println!("applied {name}");
        }
    }
    for migration in store.migrations().await? {
        let state = match migration.state {
            MigrationState::Applied => "applied",
            MigrationState::Missing => {
                is_whole = false;
                "missing"
            }
            MigrationState::Newer => "newer",
        };
        println!("{state:8} {}", migration.name);
    }
    let role = store.role_state().await?;
    match &role {
        RoleState::AsListed => {
            println!("granted  role {ROLE}, for the service's login to be a member of");
        }
        RoleState::Missing => println!("missing  role {ROLE}"),
        RoleState::OfNewerRelease => {
            println!("newer    role {ROLE}: what it is to have is for the newer release to say");
        }
        RoleState::Differs(points) => println!("differs  role {ROLE}: {}", points.join("; ")),
    }
    if let Some(newer) = store.needs_newer_server().await? {
        let why = format!("the schema needs a server of version {newer} or newer");
        if !status {
            bail!("{why}; nothing was changed");
        }
        println!("refused  {why}");
        is_whole = false;
    }
    if new_history {
        if !servers.is_empty() {
            let whose = servers.join("; ");
            bail!("stop the servers first; there are sessions of theirs in the database: {whose}");
        }
        let ledger = Ledger::new(store.clone());
        for namespace in store.namespaces().await? {
            let taken_back = ledger.begin_history(&namespace).await?;
            println!("{namespace}: a new history; open approvals taken back: {taken_back}");
        }
    }
    match role {
        RoleState::AsListed | RoleState::OfNewerRelease if is_whole => Ok(()),
        _ if status => bail!("the database is not as this release needs it"),
        RoleState::AsListed | RoleState::OfNewerRelease => Ok(()),
        RoleState::Differs(_) => {
            bail!("the role {ROLE} has been granted what it needs, and is more than that")
        }
        RoleState::Missing => {
            bail!("the role {ROLE} is missing: migrate with the release that the schema is of")
        }
    }
}
