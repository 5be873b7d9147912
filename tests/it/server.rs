//! Servers: in this process, and as processes of their own that can be killed.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use approval_authority::{
    admin::Admin,
    auth::{
        Access,
        jwt::Issuers,
        tokens::{self, Tokens},
    },
    grpc::{
        limits::Limits,
        server::{Drained, Server},
    },
    keeper::Retention,
    policy::file::{self, BUILT_IN},
};
use jiff::SignedDuration;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use crate::{
    certificates::{Authority, Certified},
    database::{Database, store},
    harness::{BINDINGS, Caller, SUBJECTS},
};

/// Longer than tests move the clock, but for those of retention itself.
pub const RETENTION: Retention = Retention {
    closed_approvals: SignedDuration::from_hours(90 * 24),
    events: SignedDuration::from_hours(90 * 24),
};

/// More than tests ask for, but for those of the limits themselves.
pub const LIMITS: Limits = Limits {
    connections: 10_000,
    calls: 10_000,
    calls_per_principal: 10_000,
    waiters: 10_000,
    waiters_per_principal: 10_000,
    watchers: 10_000,
    watchers_per_principal: 2_000,
    unread: Duration::from_secs(60),
    // Never: peers that are closed for another reason must not be closed for this one.
    silent: Duration::from_secs(24 * 3600),
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
    access: watch::Sender<Arc<Access>>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Drained>,
}

fn access(policy: &str, tokens: &str, issuers: Issuers) -> Arc<Access> {
    Arc::new(Access {
        tokens: Tokens::parse(tokens).expect("tokens"),
        mtls: None,
        issuers,
        policy: Arc::new(file::parse(policy).expect("a policy")),
    })
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
        Self::with_issuers(url, policy, Issuers::default()).await
    }

    pub async fn with_tokens(url: &str, tokens: &str) -> Self {
        let access = access(&policy_text(), tokens, Issuers::default());
        Self::start(url, access, LIMITS).await
    }

    pub async fn with_limits(url: &str, limits: Limits) -> Self {
        let access = access(&policy_text(), &tokens_text(), Issuers::default());
        Self::start(url, access, limits).await
    }

    pub async fn with_issuers(url: &str, policy: &str, issuers: Issuers) -> Self {
        Self::start(url, access(policy, &tokens_text(), issuers), LIMITS).await
    }

    /// Puts another policy and other tokens in force, as a SIGHUP does; and no issuers.
    pub fn reload(&self, policy: &str, tokens: &str) {
        self.access.send_replace(access(policy, tokens, Issuers::default()));
    }

    async fn start(url: &str, access: Arc<Access>, limits: Limits) -> Self {
        let (sender, receiver) = watch::channel(access);
        let server = Server {
            store: store(url),
            access: receiver,
            tls: None,
            limits,
            retention: RETENTION,
            reflection: true,
            admin: Admin::default(),
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
        Self { address, access: sender, stop: Some(stop), running }
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
    folder: TempDir,
    log: mpsc::UnboundedReceiver<String>,
}

impl Process {
    /// `serve` on a database.
    pub async fn serve(url: &str) -> Self {
        Self::with_policy(url, &policy_text()).await
    }

    pub async fn with_policy(url: &str, policy: &str) -> Self {
        Self::launch(url, policy, "", &[]).await
    }

    /// `serve` with a certificate, where a client certificate speaks for a DNS name in it, and one such name has a role.
    pub async fn with_certificates(
        url: &str,
        shown: &Certified,
        clients: &Authority,
        (role, name): (&str, &str),
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mtls = "[server.tls]\ncert = \"server.pem\"\nkey = \"server.key\"\nclient_ca = \"clients.pem\"\n\
             [auth.mtls]\nsubject = \"dns\"\n";
        write_deployment(folder.path(), url, mtls);
        let binding = format!(
            "\n[[bindings]]\nrole = \"{role}\"\nprincipals = [\"mtls:{name}\"]\nworkspaces = [\"*\"]\n"
        );
        let write = |name: &str, text: String| {
            std::fs::write(folder.path().join(name), text).expect("written");
        };
        write("policy.toml", policy_text() + &binding);
        write("clients.pem", clients.pem());
        shown.write(folder.path());
        Self::of(folder).await
    }

    /// With keys of the configuration, as in `("SERVER__DRAIN_GRACE", "3s")`.
    pub async fn with_settings(url: &str, settings: &[(&str, &str)]) -> Self {
        let settings: Vec<(String, &str)> = settings
            .iter()
            .map(|(key, value)| (format!("APPROVAL_AUTHORITY_{key}"), *value))
            .collect();
        Self::launch(url, &policy_text(), "", &settings).await
    }

    /// `serve` with more in its configuration.
    pub async fn with_config(url: &str, policy: &str, more: &str) -> Self {
        Self::launch(url, policy, more, &[]).await
    }

    /// `serve` with more in its configuration, and variables of others than the program's own.
    pub async fn with_variables(url: &str, more: &str, variables: &[(&str, &str)]) -> Self {
        let variables: Vec<(String, &str)> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Self::launch(url, &policy_text(), more, &variables).await
    }

    async fn launch(url: &str, policy: &str, more: &str, variables: &[(String, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        write_deployment(folder.path(), url, more);
        std::fs::write(folder.path().join("policy.toml"), policy).expect("written");
        Self::on(folder, variables).await
    }

    /// `serve` on the deployment in a folder.
    pub async fn of(folder: TempDir) -> Self {
        Self::on(folder, &[]).await
    }

    async fn on(folder: TempDir, variables: &[(String, &str)]) -> Self {
        let config = folder.path().join("approval-authority.toml");
        let mut command = program();
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.env("RUST_LOG", "approval_authority=info").stderr(Stdio::piped());
        command.arg("serve").arg("--config").arg(config);
        let (mut child, address) = start(command).await;
        let log = log_of(&mut child);
        Self { address, child, folder, log }
    }

    /// Replaces one of the deployment's files.
    pub fn write(&self, file: &str, text: &str) {
        std::fs::write(self.file(file), text).expect("written");
    }

    /// One of the deployment's files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What is logged from where the last look ended up to a line with these words, which ends it.
    pub async fn logs(&mut self, words: &str) -> Vec<String> {
        until(&mut self.log, words).await
    }

    pub async fn caller(&self, subject: &str) -> Caller {
        Caller::new(self.address, subject).await
    }

    /// Where those who run it look. It is said once, at the beginning of the log.
    pub async fn admin(&mut self) -> SocketAddr {
        admin_of(&mut self.log).await
    }

    /// Memory that it holds.
    pub fn resident_kib(&self) -> i64 {
        let pid = self.child.id().expect("running");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// Asks it to stop and waits until it has; then the rest of what it logged.
    pub async fn stop(mut self) -> Vec<String> {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        let ended = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        assert!(ended.expect("it ends").expect("it was running").success());
        let mut log = Vec::new();
        while let Some(line) = self.log.recv().await {
            log.push(line);
        }
        log
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

/// What a program logs, line by line, however late it is looked at.
pub fn log_of(child: &mut Child) -> mpsc::UnboundedReceiver<String> {
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let (sender, log) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            // It is read to its end, so that the program never waits for us.
            let _ = sender.send(line);
        }
    });
    log
}

/// Where a program says at its start that those who run it can look.
pub async fn admin_of(log: &mut mpsc::UnboundedReceiver<String>) -> SocketAddr {
    let lines = until(log, "readiness on http://").await;
    let (_, address) = lines.last().and_then(|line| line.split_once("http://")).expect("there");
    // In JSON there is more behind it.
    let address = address.split('"').next().expect("the first part");
    address.trim().parse().expect("an address")
}

/// The lines of a log up to one with these words, which is the last of them.
pub async fn until(log: &mut mpsc::UnboundedReceiver<String>, words: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    while !lines.last().is_some_and(|line| line.contains(words)) {
        let line = tokio::time::timeout(Duration::from_secs(30), log.recv()).await;
        let line = line.ok().flatten();
        lines.push(line.unwrap_or_else(|| panic!("no {words:?} in {lines:#?}")));
    }
    lines
}

/// Writes the files of a deployment; returns the configuration's.
pub fn write_deployment(folder: &Path, url: &str, more: &str) -> PathBuf {
    std::fs::write(folder.join("tokens.toml"), tokens_text()).expect("written");
    std::fs::write(folder.join("policy.toml"), policy_text()).expect("written");
    let url = toml::Value::from(url);
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[database]\nurl = {url}\n\
         [auth.tokens]\nfile = \"tokens.toml\"\n[policy]\nfile = \"policy.toml\"\n{more}"
    );
    let file = folder.join("approval-authority.toml");
    std::fs::write(&file, config).expect("written");
    file
}
