//! The commands of people, and of scripts: they call the authority as everybody does, and say in plain words what came
//! of it.

use std::process::ExitCode;

use clap::Subcommand;

use self::failure::Failure;

mod connection;
mod decide;
mod failure;
mod fold;
mod generate;
mod json;
mod lapse;
mod list;
mod output;
mod require;
mod show;
mod shown;
mod take_back;
mod watch;
mod which;

#[derive(Subcommand)]
pub(super) enum Command {
    /// List what waits for a decision; what lapses first comes first.
    Pending(list::Pending),
    /// List approvals in any state, newest first.
    List(list::List),
    /// Show all there is to know of an approval.
    Show(show::Show),
    /// Approve what waits for a decision.
    Approve(decide::Approve),
    /// Refuse what waits for a decision.
    Deny(decide::Deny),
    /// Take back an approval that was given and not used yet.
    Revoke(take_back::Revoke),
    /// Take back what you asked for and nobody has decided yet.
    Withdraw(take_back::Withdraw),
    /// Follow what happens, as it happens.
    Watch(watch::Watch),
    /// Ask whether an operation may be executed now, once.
    Require(require::Require),
    /// Print what makes a shell complete this program's command line.
    Completions(generate::Completions),
    /// Print the manual page.
    Man(generate::Man),
}

/// Runs a command, and tells a person why it failed.
pub(super) fn main(command: Command) -> ExitCode {
    let done = super::in_runtime(async { Ok(run(command).await) });
    match done.unwrap_or_else(|error| Err(Failure::new(failure::Exit::Failure, error))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Pending(pending) => pending.run().await,
        Command::List(list) => list.run().await,
        Command::Show(show) => show.run().await,
        Command::Approve(approve) => approve.run().await,
        Command::Deny(deny) => deny.run().await,
        Command::Revoke(revoke) => revoke.run().await,
        Command::Withdraw(withdraw) => withdraw.run().await,
        Command::Watch(watch) => watch.run().await,
        Command::Require(require) => require.run().await,
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
    }
}
