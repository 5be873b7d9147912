//! A database, a server as a process of its own, and callers.

use std::{path::PathBuf, process::Stdio, time::Duration};

use approval_authority::{
    auth::tokens,
    config::program_folders,
    embedded::{Cluster, Installation, Keep},
    policy::file::BUILT_IN,
    proto::{
        RequireApprovalRequest, Start, WatchApprovalsRequest, WatchApprovalsResponse,
        approval_service_client::ApprovalServiceClient,
    },
};
use futures_util::TryStreamExt;
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
role = "viewer"
principals = ["tokens:viewer"]
namespaces = ["*"]
workspaces = ["*"]
"#;

/// All that a bench needs. It is gone with it.
pub struct Bench {
    url: String,
    address: String,
    server: Child,
    _cluster: Cluster,
    _folder: TempDir,
}

impl Bench {
    pub async fn start() -> Self {
        let (pg_bin, path) = program_folders();
        let installation =
            Installation::find(pg_bin, &path).expect("a PostgreSQL: see scripts/postgres");
        let postgres =
            tempfile::Builder::new().prefix("aa-bench-").tempdir().expect("a folder").keep();
        let settings = &["max_connections=100", "shared_buffers=512MB", "max_wal_size=4GB"];
        let cluster = Cluster::start(&installation, &postgres, settings, Keep::Nothing).await;
        let cluster = cluster.expect("a cluster");
        cluster.create_database("bench").await.expect("a database");
        let url = cluster.url("bench");
        let folder = tempfile::tempdir().expect("a folder");
        let config = deployment(&folder, &url);
        let mut server = Command::new(env!("CARGO_BIN_EXE_approval-authority"))
            .arg("serve")
            .arg("--config")
            .arg(config)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program");
        let mut lines = BufReader::new(server.stdout.take().expect("piped")).lines();
        let line = lines.next_line().await.expect("output").expect("a line");
        let address = line.strip_prefix("listening on ").expect("an address").to_owned();
        Self { url, address, server, _cluster: cluster, _folder: folder }
    }

    /// One of those that have a token, on a connection of its own.
    pub async fn caller(&self, subject: &str) -> Caller {
        let endpoint =
            Endpoint::from_shared(format!("http://{}", self.address)).expect("well-formed");
        // As the documentation tells subscribers to.
        let endpoint = endpoint
            .initial_stream_window_size(64 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024);
        let channel = endpoint.connect().await.expect("a server");
        let token = format!("Bearer {subject}-token-for-benches").parse().expect("ASCII");
        Caller(ApprovalServiceClient::with_interceptor(channel, Credential(token)))
    }

    /// Memory that the server holds.
    pub fn server_kib(&self) -> i64 {
        let pid = self.server.id().expect("running");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
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

    async fn connect(&self) -> tokio_postgres::Client {
        let (client, driver) = tokio_postgres::connect(&self.url, NoTls).await.expect("connected");
        tokio::spawn(driver);
        client
    }
}

fn deployment(folder: &TempDir, url: &str) -> PathBuf {
    let entries = ["backend", "flood", "viewer"].map(|subject| {
        tokens::entry(subject, &format!("{subject}-token-for-benches"), &[]).expect("a subject")
    });
    let url = toml::Value::from(url);
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[database]\nurl = {url}\nmigrate_on_start = true\n\
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
