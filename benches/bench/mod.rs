//! A database, servers as processes of their own, and callers.

// Each bench uses what it needs.
#![allow(dead_code)]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use approval_authority::{
    auth::tokens,
    config::program_folders,
    embedded::{Cluster, Installation, Keep},
    policy::file::BUILT_IN,
    proto::{
        DecideRequest, Decision, ListApprovalsRequest, RequireApprovalRequest,
        RequireApprovalResponse, Start, WatchApprovalsRequest, WatchApprovalsResponse,
        approval_service_client::ApprovalServiceClient,
    },
    store::{Store, StoreConfig, role::ROLE},
};
use futures_util::TryStreamExt;
use place::Operation;
use prost_types::{Struct, Value, value::Kind};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};
use tokio_postgres::NoTls;
use tonic::{
    Request, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

const BINDINGS: &str = r#"
[[bindings]]
role = "requester"
principals = ["tokens:backend", "tokens:flood"]
namespaces = ["*"]
workspaces = ["*"]

[[bindings]]
role = "approver"
principals = ["tokens:alice", "tokens:bob"]
namespaces = ["*"]
workspaces = ["*"]
actions = ["*"]

[[bindings]]
role = "viewer"
principals = ["tokens:viewer"]
namespaces = ["*"]
workspaces = ["*"]
"#;

pub mod calls;
pub mod measure;
pub mod place;
pub mod straight;

/// Whether a part was asked for: `make bench ARGS="-- catch-up"` runs that alone; without a name all are run.
pub fn wanted(part: &str) -> bool {
    all_wanted() || named().any(|name| name == part)
}

/// Whether no part was asked for by name.
pub fn all_wanted() -> bool {
    named().next().is_none()
}

fn named() -> impl Iterator<Item = String> {
    std::env::args().skip(1).filter(|argument| !argument.starts_with('-'))
}

/// All that a bench needs.
pub struct Bench {
    pub url: String,
    pub servers: Vec<Server>,
    pg_bin: PathBuf,
    config: PathBuf,
    _cluster: Cluster,
    _folder: TempDir,
}

/// A server on the database.
pub struct Server {
    pub address: String,
    process: Child,
}

impl Server {
    async fn start(config: &PathBuf) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_approval-authority"))
            .arg("serve")
            .arg("--config")
            .arg(config)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let line = lines.next_line().await.expect("output").expect("a line");
        let address = line.strip_prefix("listening on ").expect("an address").to_owned();
        Self { address, process }
    }
}

impl Bench {
    /// On a database of its own, which is gone with it.
    pub async fn start() -> Self {
        let postgres = tempfile::Builder::new().prefix("aa-bench-").tempdir().expect("a folder");
        Self::start_in(&postgres.keep(), Keep::Nothing).await
    }

    /// On the database of a folder, which is made if it is not there.
    pub async fn start_in(postgres: &Path, keep: Keep) -> Self {
        let (pg_bin, path) = program_folders();
        let installation =
            Installation::find(pg_bin, &path).expect("a PostgreSQL: see scripts/postgres");
        let is_new = !postgres.join("data").exists();
        let settings = &["max_connections=100", "shared_buffers=512MB", "max_wal_size=4GB"];
        let cluster = Cluster::start(&installation, postgres, settings, keep).await;
        let cluster = cluster.expect("a cluster");
        // The owner makes the schema, as `migrate` does; the servers work as in a deployment.
        let url = cluster.url("bench");
        if is_new {
            cluster.create_database("bench").await.expect("a database");
        }
        migrate(&url).await;
        if is_new {
            cluster.add_login("service", ROLE).await.expect("a login");
        }
        let service = cluster.url_as("service", "bench");
        let folder = tempfile::tempdir().expect("a folder");
        let config = deployment(&folder, &service);
        let server = Server::start(&config).await;
        let pg_bin = installation.bin().to_owned();
        Self { url, servers: vec![server], pg_bin, config, _cluster: cluster, _folder: folder }
    }

    /// Starts another server on the same database.
    pub async fn add_server(&mut self) {
        self.servers.push(Server::start(&self.config).await);
    }

    /// A program of PostgreSQL's.
    pub fn program(&self, name: &str) -> Command {
        Command::new(self.pg_bin.join(name))
    }

    /// One of those who have a token, on a connection of its own.
    pub async fn caller(&self, subject: &str) -> Caller {
        self.caller_of(&self.servers[0], subject).await
    }

    /// The same, at a server.
    pub async fn caller_of(&self, server: &Server, subject: &str) -> Caller {
        let address = format!("http://{}", server.address);
        let endpoint = Endpoint::from_shared(address).expect("well-formed");
        // As the documentation tells subscribers to.
        let endpoint = endpoint
            .initial_stream_window_size(64 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024);
        let channel = endpoint.connect().await.expect("a server");
        let token = format!("Bearer {subject}-token-for-benches").parse().expect("ASCII");
        Caller(ApprovalServiceClient::with_interceptor(channel, Credential(token)))
    }

    /// Memory that the first server holds.
    pub fn server_kib(&self) -> i64 {
        let pid = self.servers[0].process.id().expect("running");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// Time that the first server has had processors to itself.
    pub fn server_cpu(&self) -> Duration {
        let pid = self.servers[0].process.id().expect("running");
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
        // The fields after the program's name, which is in brackets: the 12th and 13th are ticks of ten milliseconds (proc(5)).
        let fields = stat.rsplit(')').next().expect("fields").split_whitespace().skip(11).take(2);
        let ticks: u64 = fields.map(|field| field.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(10 * ticks)
    }

    /// Writes a log of so many events, two for each approval, as the service does.
    pub async fn fill_log(&self, namespace: &str, events: usize) {
        let fill =
            format!(include_str!("fill_log.sql"), namespace = namespace, approvals = events / 2);
        self.connect().await.batch_execute(&fill).await.expect("filled");
    }

    /// Reads what a subscriber is told of with COPY; returns how many bytes it was.
    pub async fn copy_log(&self, namespace: &str) -> usize {
        let copy = format!(
            "COPY (SELECT e.revision, e.type, e.workspace_id, e.actor, e.note, e.event_time, e.batch_id, e.state,
                e.version, e.verdicts, e.expire_time, e.decide_time, e.consume_time, e.consumed_by,
                a.id, a.workspace_id, a.action, a.context, a.request_hash, a.requested_by, a.on_behalf_of, a.reason,
                a.approvals_required, a.policy_digest, a.recent_denials, a.create_time
            FROM approval_authority.events AS e
            JOIN approval_authority.approvals AS a ON a.namespace = e.namespace AND a.id = e.approval_id
            WHERE e.namespace = '{namespace}' ORDER BY e.revision) TO STDOUT"
        );
        let rows = self.connect().await.copy_out(&copy).await.expect("rows");
        rows.try_fold(0, async |bytes, row| Ok(bytes + row.len())).await.expect("all rows")
    }

    pub async fn connect(&self) -> tokio_postgres::Client {
        let (client, driver) = tokio_postgres::connect(&self.url, NoTls).await.expect("connected");
        tokio::spawn(driver);
        client
    }
}

async fn migrate(url: &str) {
    let folder = PathBuf::new();
    let config = StoreConfig { url: url.to_owned(), notify_url: None, pool_size: 1, folder };
    Store::new(&config).expect("a store").migrate().await.expect("migrated");
}

fn deployment(folder: &TempDir, url: &str) -> PathBuf {
    let entries = ["backend", "alice", "flood", "viewer"].map(|subject| {
        tokens::entry(subject, &format!("{subject}-token-for-benches"), &[]).expect("a subject")
    });
    let url = toml::Value::from(url);
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[database]\nurl = {url}\n\
         [auth.tokens]\nfile = \"tokens.toml\"\n[policy]\nfile = \"policy.toml\"\n\
         [limits]\nwatchers_per_principal = 10000\n"
    );
    let write =
        |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    write("tokens.toml", &entries.join("\n"));
    write("policy.toml", &format!("{BUILT_IN}{BINDINGS}"));
    write("approval-authority.toml", &config);
    folder.path().join("approval-authority.toml")
}

/// Adds a caller's credential to each call.
#[derive(Clone)]
pub struct Credential(MetadataValue<Ascii>);

impl Interceptor for Credential {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Somebody who calls the server.
#[derive(Clone)]
pub struct Caller(ApprovalServiceClient<InterceptedService<Channel, Credential>>);

impl Caller {
    pub async fn require(&self, namespace: &str, workspace: &str) {
        self.ask(namespace, workspace).await.expect("an answer");
    }

    /// The same, and it may be refused.
    pub async fn ask(&self, namespace: &str, workspace: &str) -> Result<(), Status> {
        let request = RequireApprovalRequest {
            namespace: namespace.to_owned(),
            workspace_id: workspace.to_owned(),
            action: "delete_workspace".to_owned(),
            reason: "nobody has used it since May".to_owned(),
            ..Default::default()
        };
        self.0.clone().require_approval(request).await.map(|_| ())
    }

    /// Asks about an operation.
    pub async fn ask_about(&self, operation: &Operation) -> RequireApprovalResponse {
        let number = Value { kind: Some(Kind::NumberValue(operation.number as f64)) };
        let fields = [("n".to_owned(), number)].into_iter().collect();
        let request = RequireApprovalRequest {
            namespace: operation.namespace.clone(),
            workspace_id: operation.workspace.clone(),
            action: "delete_workspace".to_owned(),
            reason: "nobody has used it since May".to_owned(),
            context: Some(Struct { fields }),
            ..Default::default()
        };
        self.0.clone().require_approval(request).await.expect("an answer").into_inner()
    }

    /// Approves what an answer says is pending.
    pub async fn approve(&self, asked: &RequireApprovalResponse) {
        let approval = asked.approval.as_ref().expect("an approval");
        let request = DecideRequest {
            namespace: approval.namespace.clone(),
            approval_id: approval.id.clone(),
            decision: Decision::Approve.into(),
            ..Default::default()
        };
        self.0.clone().decide(request).await.expect("an answer");
    }

    /// Reads the first page of a list.
    pub async fn list(&self, request: ListApprovalsRequest) {
        self.0.clone().list_approvals(request).await.expect("a page");
    }

    pub async fn watch(&self, namespace: &str, start: Start) -> Streaming<WatchApprovalsResponse> {
        let request = WatchApprovalsRequest {
            namespace: namespace.to_owned(),
            start: start.into(),
            ..Default::default()
        };
        self.0.clone().watch_approvals(request).await.expect("a stream").into_inner()
    }
}

/// The value below which so many of a hundred lie.
pub fn percentile(values: &mut [Duration], percent: usize) -> Duration {
    values.sort_unstable();
    values[(values.len() * percent / 100).min(values.len() - 1)]
}
