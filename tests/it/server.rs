//! Servers: in this process, and as processes of their own that can be killed.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use approval_authority::{
    auth::tokens::{self, Tokens},
    grpc::server::{Drained, Server},
    policy::file::{self, BUILT_IN},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
    sync::oneshot,
    task::JoinHandle,
};

use crate::{
    database::{Database, store},
    harness::{BINDINGS, Caller, SUBJECTS},
};

/// The policy that the tests run under.
pub fn policy_text() -> String {
    format!("{BUILT_IN}{BINDINGS}")
}

/// The tokens of everybody that tests speak for.
pub fn tokens_text() -> String {
    let entries = SUBJECTS.iter().map(|(subject, groups)| {
        tokens::entry(subject, &format!("{subject}-token-for-tests"), groups).expect("a subject")
    });
    entries.collect::<Vec<String>>().join("\n")
}

/// A server in this process, on a port of its own.
pub struct TestServer {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Drained>,
}

impl TestServer {
    /// A database and a server on it.
    pub async fn new() -> (Database, Self) {
        let database = Database::new().await;
        let server = Self::on(&database.url).await;
        (database, server)
    }

    pub async fn on(url: &str) -> Self {
        Self::with_policy(url, &policy_text()).await
    }

    pub async fn with_policy(url: &str, policy: &str) -> Self {
        Self::start(url, policy, &tokens_text()).await
    }

    pub async fn with_tokens(url: &str, tokens: &str) -> Self {
        Self::start(url, &policy_text(), tokens).await
    }

    async fn start(url: &str, policy: &str, tokens: &str) -> Self {
        let server = Server {
            store: store(url),
            policy: Arc::new(file::parse(policy).expect("a policy")),
            tokens: Arc::new(Tokens::parse(tokens).expect("tokens")),
            reflection: true,
            drain_grace: Duration::from_secs(10),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(async move {
            let stopped = async {
                // A test that ends without a word stops its server too.
                let _ = stopped.await;
            };
            server.run(listener, stopped).await.expect("served")
        });
        Self { address, stop: Some(stop), running }
    }

    pub async fn caller(&self, subject: &str) -> Caller {
        Caller::new(self.address, subject).await
    }

    /// Asks the server to stop and waits until it has drained.
    pub async fn drain(mut self) -> Drained {
        drop(self.stop.take());
        self.running.await.expect("drained")
    }
}

/// A server that is a process of its own. It is killed when the test lets go of it.
pub struct Process {
    pub address: SocketAddr,
    pub child: Child,
    _folder: TempDir,
}

impl Process {
    /// `serve` on a database.
    pub async fn serve(url: &str) -> Self {
        Self::with_policy(url, &policy_text()).await
    }

    pub async fn with_policy(url: &str, policy: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = write_deployment(folder.path(), url, "");
        std::fs::write(folder.path().join("policy.toml"), policy).expect("written");
        let mut command = program();
        command.arg("serve").arg("--config").arg(config);
        let (child, address) = start(command).await;
        Self { address, child, _folder: folder }
    }

    pub async fn caller(&self, subject: &str) -> Caller {
        Caller::new(self.address, subject).await
    }

    /// Sends a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let id = self.child.id().expect("running").cast_signed();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), signal).expect("signalled");
    }
}

/// The program under test.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_approval-authority"));
    command.kill_on_drop(true).env("RUST_LOG", "off");
    command
}

/// Starts a server and waits until it says where it listens.
pub async fn start(mut command: Command) -> (Child, SocketAddr) {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the program");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    loop {
        let line = lines.next_line().await.expect("output").expect("it listens before it ends");
        if let Some(address) = line.strip_prefix("listening on ") {
            // What follows is read and thrown away, so that the program never waits for us.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return (child, address.parse().expect("an address"));
        }
    }
}

/// Writes the files of a deployment; returns the configuration's.
pub fn write_deployment(folder: &Path, url: &str, more: &str) -> PathBuf {
    std::fs::write(folder.join("tokens.toml"), tokens_text()).expect("written");
    std::fs::write(folder.join("policy.toml"), policy_text()).expect("written");
    let url = toml::Value::from(url);
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[database]\nurl = {url}\n\
         [auth.tokens]\nfile = \"tokens.toml\"\n[policy]\nfile = \"policy.toml\"\n{more}"
    );
    let file = folder.join("approval-authority.toml");
    std::fs::write(&file, config).expect("written");
    file
}
