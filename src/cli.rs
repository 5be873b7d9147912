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
mod people;
mod policy;
mod serve;
mod table;
mod token;
mod traces;

/// A human approval, consumed exactly once, in front of every destructive operation.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Exit codes of the commands that call the authority: 0 done, or let through; 1 failure; 2 usage; 3 held, people have been
asked; 4 credential; 5 refused, by a person, the policy or for want of a role; 6 the state has moved on; 7 try again.

Examples:
  approval-authority dev
  approval-authority pending
  approval-authority approve 2233aabb"
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Try it: a private PostgreSQL, the built-in policy, and tokens for a backend and two people.
    #[command(after_help = "Examples:\n  approval-authority dev --listen 127.0.0.1:50052")]
    Dev(dev::Arguments),
    /// Run the service.
    #[command(
        after_help = "Examples:\n  approval-authority serve --config approval-authority.toml"
    )]
    Serve {
        /// The deployment.
        #[arg(long, default_value = "approval-authority.toml")]
        config: PathBuf,
    },
    /// Bring the database's schema up to this version.
    #[command(
        after_help = "Examples:\n  approval-authority migrate --config approval-authority.toml --status"
    )]
    Migrate {
        /// The deployment.
        #[arg(long, default_value = "approval-authority.toml")]
        config: PathBuf,
        /// Say what is applied, and change nothing; exit code 0 if servers of this release can work on it, else 1.
        #[arg(long)]
        status: bool,
        /// After the database was restored from a backup, before any server is started: take back every approval
        /// that is open, and refuse the cursors of before. Refused while servers are at work.
        #[arg(long, conflicts_with = "status")]
        new_history: bool,
    },
    /// Ask the server of this deployment, on this machine, whether it serves: exit code 0 if so, else 1.
    #[command(
        after_help = "Examples:\n  approval-authority health --config approval-authority.toml"
    )]
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
    #[command(flatten)]
    People(Box<people::Command>),
}

#[derive(Subcommand)]
enum PolicyCommand {
    /// Print what a policy puts in force, or everything that is wrong with it.
    #[command(after_help = "Examples:\n  approval-authority policy check policy.toml")]
    Check {
        /// policy.toml
        file: PathBuf,
    },
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Print a random token, once, and its entry for tokens.toml.
    #[command(after_help = "\
Examples:
  approval-authority token new workspace-server
  approval-authority token new alice --group org-admins")]
    New {
        /// Whom it is for: the principal is tokens:SUBJECT.
        subject: String,
        /// A group of theirs, to which policy.toml can give roles as tokens:GROUP; can be repeated.
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
    },
}

/// Runs the command that the command line names.
pub fn main() -> ExitCode {
    let command = CommandLine::parse().command;
    match command {
        // Its configuration says how.
        Command::Serve { .. } => {}
        // They speak to a person, and log nothing.
        Command::People(_) => {}
        _ => logs::begin(LogFormat::Human),
    }
    let done = match command {
        Command::Dev(arguments) => in_runtime(dev::run(arguments)),
        Command::Serve { config } => in_runtime(serve::run(config)),
        Command::Migrate { config, status, new_history } => {
            in_runtime(migrate::run(config, status, new_history))
        }
        Command::Health { config, timeout } => in_runtime(health::run(config, timeout)),
        Command::Policy(PolicyCommand::Check { file }) => policy::check(&file),
        Command::Token(TokenCommand::New { subject, groups }) => token::new(&subject, &groups),
        Command::People(command) => return people::main(*command),
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

fn in_runtime<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(command);
    // A file that is being read from where nothing comes must not keep it from ending.
    runtime.shutdown_background();
    done
}
