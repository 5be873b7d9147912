//! The program's commands.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use self::files::Faulty;
use crate::config::LogFormat;

mod certificates;
mod dev;
mod files;
mod health;
mod logs;
mod migrate;
mod notify;
mod policy;
mod serve;
mod table;
mod token;

/// A human approval, consumed exactly once, in front of every destructive operation.
#[derive(Parser)]
#[command(version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Try it: a private PostgreSQL, the built-in policy and two tokens.
    Dev(dev::Arguments),
    /// Run the service.
    Serve {
        /// The deployment.
        #[arg(long, default_value = "approval-authority.toml")]
        config: PathBuf,
    },
    /// Bring the database's schema up to this version.
    Migrate {
        /// The deployment.
        #[arg(long, default_value = "approval-authority.toml")]
        config: PathBuf,
        /// Say what is applied, and change nothing.
        #[arg(long)]
        status: bool,
        /// After the database was restored from a backup, before any server is started: take back every approval
        /// that is open, and refuse the cursors of before.
        #[arg(long, conflicts_with = "status")]
        new_history: bool,
    },
    /// Ask the server of this deployment, on this machine, whether it serves: exit code 0 if so, else 1.
    Health {
        /// The deployment.
        #[arg(long, default_value = "approval-authority.toml")]
        config: PathBuf,
        /// How long to wait for an answer, in seconds.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
        timeout: u64,
    },
    /// Look at policies.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Make credentials.
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Subcommand)]
enum PolicyCommand {
    /// Print what a policy puts in force, or everything that is wrong with it.
    Check {
        /// policy.toml
        file: PathBuf,
    },
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Print a random token, once, and its entry for tokens.toml.
    New {
        /// Whom it is for: the principal is tokens:SUBJECT.
        subject: String,
    },
}

/// Runs the command that the command line names.
pub fn main() -> ExitCode {
    let command = CommandLine::parse().command;
    // Of `serve` the configuration says how.
    if !matches!(command, Command::Serve { .. }) {
        logs::begin(LogFormat::Human);
    }
    let done = match command {
        Command::Dev(arguments) => in_runtime(dev::run(arguments)),
        Command::Serve { config } => in_runtime(serve::run(config)),
        Command::Migrate { config, status, new_history } => {
            in_runtime(migrate::run(config, status, new_history))
        }
        Command::Health { config, timeout } => in_runtime(health::run(config, timeout)),
        Command::Policy(PolicyCommand::Check { file }) => policy::check(&file),
        Command::Token(TokenCommand::New { subject }) => token::new(&subject),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Each of these says what it is of.
        Err(error) if error.is::<Faulty>() => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("approval-authority: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn in_runtime(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(command)
}
