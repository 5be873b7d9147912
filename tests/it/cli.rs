//! The commands of people, through the real program against a real server.

use std::{
    fs::File,
    io::{Read, Write},
    net::SocketAddr,
    process::Stdio,
    time::Duration,
};

use approval_authority::proto::{Approval, RequireApprovalRequest};
use nix::pty::{Winsize, openpty};
use tokio::{
    process::{Child, Command},
    sync::mpsc,
};

use crate::{
    gate::Token,
    harness::{TestServer, request},
    server::program,
};

mod deciding;
mod exits;
mod helping;
mod identifying;
mod printing;
mod reaching;
mod reasons;
mod watching;

/// Somebody at a terminal, or a script of theirs.
pub struct Person {
    server: SocketAddr,
    token: Token,
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Person {
    /// One of the harness's subjects.
    pub fn of(subject: &str, server: SocketAddr) -> Self {
        Self { server, token: Token::of(subject) }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare(arguments);
        command.arg("--server").arg(self.server.to_string());
        command.arg("--token-file").arg(self.token.path());
        command
    }

    /// Without a terminal.
    pub async fn runs(&self, arguments: &[&str]) -> Ran {
        run(self.command(arguments)).await
    }

    /// On a terminal of its own.
    pub fn types(&self, arguments: &[&str]) -> Terminal {
        Terminal::start(self.command(arguments))
    }

    /// On a terminal of so many columns.
    pub fn types_within(&self, columns: u16, arguments: &[&str]) -> Terminal {
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Terminal::of_size(Some(&size), self.command(arguments))
    }
}

/// The program, without what this test run's own environment says to it.
pub fn bare(arguments: &[&str]) -> Command {
    let mut command = program();
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        command.env_remove(name);
    }
    command.env("TERM", "xterm-256color").args(arguments);
    command
}

pub async fn run(mut command: Command) -> Ran {
    let done = command.stdin(Stdio::null()).output().await.expect("the program");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran { code: done.status.code(), out: text(done.stdout), err: text(done.stderr) }
}

/// A pseudo-terminal with a command on it.
pub struct Terminal {
    child: Child,
    keyboard: File,
    shown: mpsc::UnboundedReceiver<Vec<u8>>,
    /// All that was shown so far.
    pub screen: String,
}

impl Terminal {
    pub fn start(command: Command) -> Self {
        Self::of_size(None, command)
    }

    fn of_size(size: Option<&Winsize>, mut command: Command) -> Self {
        let terminal = openpty(size, None).expect("a terminal");
        let end = || Stdio::from(terminal.slave.try_clone().expect("a copy"));
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("the program");
        // The last copies of the terminal's end are the program's.
        drop((command, terminal.slave));
        let keyboard = File::from(terminal.master);
        let mut screen = keyboard.try_clone().expect("a copy");
        let (sender, shown) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keyboard, shown, screen: String::new() }
    }

    /// Waits until this is shown, after what was shown before the last time.
    pub async fn shows(&mut self, words: &str) {
        let from = self.screen.len();
        let mut bytes = Vec::new();
        while !self.screen[from..].contains(words) {
            let chunk = tokio::time::timeout(Duration::from_secs(30), self.shown.recv()).await;
            let chunk = chunk.ok().flatten();
            bytes.extend(chunk.unwrap_or_else(|| panic!("no {words:?} in {}", self.screen)));
            self.screen.truncate(from);
            self.screen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    pub fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("typed");
    }

    /// Waits for the end; the exit code, and all that was shown.
    pub async fn ends(mut self) -> (Option<i32>, String) {
        while let Some(chunk) = self.shown.recv().await {
            self.screen.push_str(&String::from_utf8_lossy(&chunk));
        }
        (self.child.wait().await.expect("ended").code(), self.screen)
    }
}

/// Asks for the deletion of a workspace; the approval that is pending.
pub async fn pending(server: &TestServer, workspace: &str) -> Approval {
    asked(server, request(workspace, "delete_workspace")).await
}

pub async fn asked(server: &TestServer, request: RequireApprovalRequest) -> Approval {
    let answer = server.caller("backend").await.ask(request).await.expect("an answer");
    answer.approval.expect("an approval")
}

/// The end of an id.
pub fn short(approval: &Approval) -> &str {
    &approval.id[28..]
}
