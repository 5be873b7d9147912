//! `dev`: it keeps its data, closes it to others, and survives having been killed.

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Child,
};

use crate::{
    harness::{Caller, id},
    server::program,
};

/// A running `dev`.
pub struct Dev {
    pub address: SocketAddr,
    /// What it has printed.
    pub output: String,
    pub folder: PathBuf,
    pub child: Child,
    remove: bool,
}

impl Dev {
    pub async fn start_fresh() -> Self {
        let folder = tempfile::Builder::new().prefix("aa-dev-").tempdir().expect("a folder").keep();
        // The server's user passes through.
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o711)).expect("opened");
        let mut dev = Self::start(&folder).await;
        dev.remove = true;
        dev
    }

    async fn start(folder: &Path) -> Self {
        let mut command = program();
        command.args(["dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(folder);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut output = String::new();
        while let Some(line) = lines.next_line().await.expect("output") {
            output.push_str(&line);
            output.push('\n');
            if line.starts_with("Ctrl-C") {
                break;
            }
        }
        let address = output.lines().next().and_then(|line| line.strip_prefix("listening on "));
        let address = address.and_then(|address| address.parse().ok()).expect("an address");
        Self { address, output, child, folder: folder.to_owned(), remove: false }
    }

    /// A caller with the token that was kept for it.
    pub async fn caller(&self, subject: &str) -> Caller {
        let token = std::fs::read_to_string(self.folder.join(format!("{subject}.token")));
        Caller::with_token(self.address, token.expect("kept").trim()).await
    }

    fn postgres(&self) -> i32 {
        let pid = self.folder.join("postgres/data/postmaster.pid");
        let pid = std::fs::read_to_string(pid).expect("running");
        pid.lines().next().and_then(|line| line.parse().ok()).expect("a number")
    }

    async fn signal_and_wait(&mut self, signal: Signal) -> Option<i32> {
        let pid = self.child.id().expect("running").cast_signed();
        kill(Pid::from_raw(pid), signal).expect("signalled");
        self.child.wait().await.expect("exited").code()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if !self.remove {
            return;
        }
        // Its PostgreSQL goes when it goes, and then the folder.
        let postgres = self.folder.join("postgres/data/postmaster.pid");
        if let Some(pid) = self.child.id() {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM);
        }
        let until = Instant::now() + Duration::from_secs(20);
        while postgres.exists() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[tokio::test]
async fn dev_keeps_its_data_and_survives_having_been_killed() {
    let mut first = Dev::start_fresh().await;
    let folder = first.folder.clone();
    let held = first.caller("workspace-server").await.require("w1", "delete_workspace").await;
    let postgres = first.postgres();
    assert_eq!(first.signal_and_wait(Signal::SIGKILL).await, None, "killed");

    // The next one starts at once, whatever the killed one's server is doing.
    let mut second = Dev::start(&folder).await;
    assert_ne!(second.postgres(), postgres);
    let again = second.caller("workspace-server").await.require("w1", "delete_workspace").await;
    assert_eq!(id(&again), id(&held), "the tokens and the data are still there");

    assert_eq!(second.signal_and_wait(Signal::SIGINT).await, Some(0));
    assert!(!folder.join("postgres/data/postmaster.pid").exists(), "it stopped its server");

    let mut third = Dev::start(&folder).await;
    third.caller("alice").await.approve(&id(&held)).await;
    let through = third.caller("workspace-server").await.require("w1", "delete_workspace").await;
    assert_eq!(id(&through), id(&held));
    // The last one removes the folder.
    (first.remove, third.remove) = (false, true);
}

#[tokio::test]
async fn dev_is_closed_to_others() {
    let dev = Dev::start_fresh().await;
    for (file, expected) in [
        ("workspace-server.token", 0o600),
        ("alice.token", 0o600),
        ("tokens.toml", 0o600),
        ("policy.toml", 0o600),
        ("postgres", 0o700),
        ("postgres/socket", 0o700),
        ("postgres/data", 0o700),
    ] {
        assert_eq!(mode(&dev.folder.join(file)), expected, "{file}");
    }
    let tokens = std::fs::read_to_string(dev.folder.join("tokens.toml")).expect("kept");
    let secret = std::fs::read_to_string(dev.folder.join("alice.token")).expect("kept");
    assert!(!tokens.contains(secret.trim()), "the file of hashes holds no secret");
    let command = std::fs::read(format!("/proc/{}/cmdline", dev.postgres())).expect("running");
    let command = String::from_utf8_lossy(&command).into_owned();
    assert!(command.contains("listen_addresses=\0"), "no TCP: {command:?}");

    let mut another = program();
    another.args(["dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&dev.folder);
    let refused = another.stderr(Stdio::piped()).output().await.expect("the program");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("another dev"), "{refused:?}");
    let mut open = program();
    let refused = open.args(["dev", "--listen", "0.0.0.0:0"]).output().await.expect("the program");
    assert_eq!(refused.status.code(), Some(1), "dev is for this machine");
}

#[tokio::test]
async fn dev_ends_with_its_terminal() {
    let mut dev = Dev::start_fresh().await;
    assert_eq!(dev.signal_and_wait(Signal::SIGHUP).await, Some(0), "it drained");
}
