//! `approval-authority`: parses the command line, runs one command, exits with its code.

use std::process::ExitCode;

use approval_authority::cli;

fn main() -> ExitCode {
    cli::main()
}
