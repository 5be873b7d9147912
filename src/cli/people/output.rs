//! What goes to stdout: text for people, or the contract's JSON.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use prost::{Message, Name};

use super::{fold::fitted, json};
use crate::proto::ApprovalState;

/// Colours reach only a terminal, and not with NO_COLOR: anstream takes them away.
pub(super) const LABEL: Style = Style::new().dimmed();

/// How the result is printed.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people.
    #[default]
    Text,
    /// The contract's protobuf JSON.
    Json,
}

impl Output {
    /// Prints a message: as JSON, or in the words made of it.
    pub(super) fn print<M: Message + Name>(
        self,
        message: &M,
        words: impl FnOnce() -> String,
    ) -> io::Result<()> {
        match self {
            Self::Text => text(&words()),
            Self::Json => plain(&(json::pretty(message)? + "\n")),
        }
    }
}

/// Prints text for people, with colours in it.
pub(super) fn text(text: &str) -> io::Result<()> {
    plain(&fitted(text, io::stdout()))
}

/// Prints what programs read.
pub(super) fn plain(text: &str) -> io::Result<()> {
    let mut stdout = anstream::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// What is open stands out, and so do the two that keep an operation from being executed by somebody's will.
pub(super) fn colour(state: ApprovalState) -> Style {
    let colour = match state {
        ApprovalState::Pending => AnsiColor::Yellow,
        ApprovalState::Approved => AnsiColor::Green,
        ApprovalState::Denied | ApprovalState::Revoked => AnsiColor::Red,
        ApprovalState::Consumed => AnsiColor::Cyan,
        ApprovalState::Unspecified | ApprovalState::Expired | ApprovalState::Withdrawn => {
            return Style::new().dimmed();
        }
    };
    colour.on_default()
}
