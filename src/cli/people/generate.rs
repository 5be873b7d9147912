//! `completions` and `man`: what a shell and a reader of manuals are given, made from the command line itself.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
};

use clap::{Args, CommandFactory};

use super::failure::Failure;
use crate::cli::CommandLine;

const NAME: &str = "approval-authority";
const PLAIN_NAME: &str = "approval_authority";

#[derive(Args)]
#[command(after_help = "\
Examples:
  approval-authority completions bash > ~/.local/share/bash-completion/completions/approval-authority
  approval-authority completions zsh > ~/.zfunc/_approval-authority
  approval-authority completions fish > ~/.config/fish/completions/approval-authority.fish")]
pub(in crate::cli) struct Completions {
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Completions {
    pub(super) fn run(self) -> Result<(), Failure> {
        let shell = match self.shell {
            Shell::Bash => clap_complete::Shell::Bash,
            Shell::Zsh => clap_complete::Shell::Zsh,
            Shell::Fish => clap_complete::Shell::Fish,
        };
        // For bash it loses the options of every command where there is a dash in the program's name (clap-rs/clap#6421).
        let name = if matches!(self.shell, Shell::Bash) { PLAIN_NAME } else { NAME };
        // Into memory, since it panics where it cannot write.
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut CommandLine::command(), name, &mut script);
        let script = String::from_utf8_lossy(&script);
        // At the end of a line stands what is completed.
        let script = script.replace(&format!(" {PLAIN_NAME}\n"), &format!(" {NAME}\n"));
        Ok(io::stdout().write_all(script.as_bytes())?)
    }
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  approval-authority man | man -l -
  approval-authority man --dir /usr/local/share/man/man1")]
pub(in crate::cli) struct Man {
    /// Write the pages of all commands into this folder.
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.dir {
            Some(dir) => {
                fs::create_dir_all(&dir)?;
                clap_mangen::generate_to(CommandLine::command(), dir)?;
            }
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(CommandLine::command()).render(&mut page)?;
                io::stdout().write_all(&page)?;
            }
        }
        Ok(())
    }
}
