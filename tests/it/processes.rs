//! The program as a process: how it starts, refuses to start, and stops; and signals to other processes.

use std::{process::Stdio, time::Duration};

use approval_authority::{
    auth::tokens::{TokenHash, Tokens},
    embedded::Cluster,
    grpc::server::Drained,
    proto::{self, Start, WatchApprovalsRequest, watch_approvals_response::Message},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::Child;
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

use crate::{
    database::Database,
    harness::{Caller, TestServer, id, refusal, request},
    server::{Process, program, start, write_deployment},
};

/// The processes of a cluster, the postmaster first, so that it does not see its children go.
pub fn processes(cluster: &Cluster) -> Vec<i32> {
    let postmaster = cluster.pid().expect("running");
    let children = format!("/proc/{postmaster}/task/{postmaster}/children");
    let children = std::fs::read_to_string(children).expect("a process");
    let children = children.split_whitespace().map(|pid| pid.parse().expect("a number"));
    [postmaster].into_iter().chain(children).collect()
}

/// Sends a signal to those that are still there.
pub fn signal(processes: &[i32], signal: Signal) {
    for pid in processes {
        let _ = kill(Pid::from_raw(*pid), signal);
    }
}

/// A cluster whose processes are there and do nothing, as behind a network that drops everything. They go on
/// when this is dropped.
pub struct Silence(Vec<i32>);

impl Silence {
    pub fn of(cluster: &Cluster) -> Self {
        let silence = Self(processes(cluster));
        signal(&silence.0, Signal::SIGSTOP);
        silence
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        signal(&self.0, Signal::SIGCONT);
    }
}

/// What a `serve` that refuses to start says.
pub async fn refuses(folder: &std::path::Path) -> String {
    let mut command = program();
    command.arg("serve").arg("--config").arg(folder.join("approval-authority.toml"));
    let output = command.stderr(Stdio::piped()).output().await.expect("the program");
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).expect("text")
}

/// As all that is in deploy/ does it.
#[tokio::test]
async fn the_database_is_found_by_files_that_the_environment_names() {
    let database = Database::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let config = write_deployment(folder.path(), "", "");
    let mut command = program();
    command.arg("serve").arg("--config").arg(config);
    for (key, name) in [("URL_FILE", "works"), ("NOTIFY_URL_FILE", "listens")] {
        let url = format!("{} application_name={name}\n", database.url);
        std::fs::write(folder.path().join(name), url).expect("written");
        command.env(format!("APPROVAL_AUTHORITY_DATABASE__{key}"), folder.path().join(name));
    }
    let (_child, address) = start(command).await;
    Caller::new(address, "backend").await.require("w1", "delete_workspace").await;
    let sessions = "SELECT count(DISTINCT application_name) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name IN ('works', 'listens')";
    let both = async { while database.count(sessions).await < 2 {} };
    tokio::time::timeout(Duration::from_secs(30), both).await.expect("one works, one listens");
}

async fn exited(child: &mut Child) -> Option<i32> {
    let exited = tokio::time::timeout(Duration::from_secs(15), child.wait()).await;
    exited.expect("within the grace").expect("exited").code()
}

#[tokio::test]
async fn it_refuses_to_start_when_it_is_unsure() {
    let database = Database::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let write = |more: &str| write_deployment(folder.path(), &database.url, more);
    let edit = |file: &str, from: &str, to: &str| {
        let path = folder.path().join(file);
        let text = std::fs::read_to_string(&path).expect("text");
        assert!(text.contains(from), "{from}");
        std::fs::write(path, text.replacen(from, to, 1)).expect("written");
    };
    write("");
    edit("approval-authority.toml", "[admin]\nlisten", "[admin]\nlissten");
    assert!(refuses(folder.path()).await.contains("lissten"), "an unknown key");
    write("");
    edit("policy.toml", "approvals_required = 2", "approvals_required = 0");
    assert!(refuses(folder.path()).await.contains("approvals_required"), "a quorum of none");
    write("");
    edit("approval-authority.toml", "127.0.0.1:0", "0.0.0.0:0");
    assert!(refuses(folder.path()).await.contains("plaintext"), "plaintext for everybody");
    write("");
    edit("approval-authority.toml", "[auth.tokens]\nfile = \"tokens.toml\"\n", "");
    assert!(refuses(folder.path()).await.contains("auth"), "nobody could be told apart");
    write("");
    edit("tokens.toml", "sha256 = \"", "sha256 = \"zz");
    assert!(refuses(folder.path()).await.contains("sha256"), "a broken token");
    let newer = "UPDATE approval_authority.schema_compatibility SET oldest_server = '9.0.0'";
    database.connect().await.batch_execute(newer).await.expect("updated");
    write("");
    assert!(refuses(folder.path()).await.contains("9.0.0"), "a schema from the future");
}

#[tokio::test]
async fn it_asks_for_a_migration_or_makes_it() {
    let database = Database::new().await;
    let drop = "DROP SCHEMA approval_authority CASCADE";
    database.connect().await.batch_execute(drop).await.expect("dropped");
    let folder = tempfile::tempdir().expect("a folder");
    let services = write_deployment(folder.path(), &database.url, "");
    assert!(refuses(folder.path()).await.contains("migrate"), "an empty database");
    let owners = tempfile::tempdir().expect("a folder");
    let config = write_deployment(owners.path(), &database.owner_url, "");

    let migrate = |status: bool| {
        let mut command = program();
        command.arg("migrate").arg("--config").arg(&config);
        if status {
            command.arg("--status");
        }
        async move {
            let output = command.output().await.expect("the program");
            (output.status.code(), String::from_utf8(output.stdout).expect("text"))
        }
    };
    let (code, status) = migrate(true).await;
    assert_eq!(code, Some(1), "{status}");
    assert!(status.contains("missing  V1__ledger"));
    let (code, migrated) = migrate(false).await;
    assert_eq!(code, Some(0), "{migrated}");
    assert!(migrated.contains("applied V1__ledger"));
    let (code, status) = migrate(true).await;
    assert_eq!(code, Some(0), "{status}");
    assert!(status.contains("applied  V1__ledger"));
    assert!(status.contains("granted  role approval_authority_service"));
    let mut as_the_service = program();
    as_the_service.args(["migrate", "--status", "--config"]).arg(services);
    let refused = as_the_service.output().await.expect("the program");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let why = String::from_utf8(refused.stderr).expect("text");
    assert!(why.contains("must be the schema owner's"), "{why}");
    Process::serve(&database.url).await;
}

#[tokio::test]
async fn it_waits_for_a_database_that_is_not_there_yet() {
    let database = Database::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    // A name that does not exist yet, on the same cluster.
    let later = database.url.replace("dbname=", "dbname=later_");
    let config = write_deployment(folder.path(), &later, "");
    let mut command = program();
    command.env("RUST_LOG", "warn").arg("serve").arg("--config").arg(config);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the program");
    let stdout = child.stdout.take().expect("piped");
    let name = later.rsplit('=').next().expect("a name");
    let old = database.url.rsplit('=').next().expect("a name");
    let admin = crate::database::connect(&database.owner_url.replace(old, "postgres")).await;
    let create = format!("CREATE DATABASE {name} TEMPLATE {old}");
    admin.batch_execute(&create).await.expect("created");
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(stdout));
    let line = tokio::time::timeout(Duration::from_secs(15), lines.next_line()).await;
    let line = line.expect("in time").expect("output").expect("a line");
    assert!(line.starts_with("listening on "), "{line}");
}

#[tokio::test]
async fn sigterm_and_ctrl_c_drain() {
    let database = Database::new().await;
    for stop in [Signal::SIGTERM, Signal::SIGINT] {
        let mut process = Process::serve(&database.url).await;
        let (backend, viewer) = (process.caller("backend").await, process.caller("viewer").await);
        let watch =
            WatchApprovalsRequest { start: Start::Unspecified.into(), ..Default::default() };
        let mut stream = viewer.watch(watch).await.expect("a stream");
        stream.message().await.expect("a message").expect("a bookmark");
        let held = backend.require(stop.as_str(), "secret_write").await;
        process.signal(stop);
        let event = stream.message().await.expect("a message").expect("no end yet");
        match event.message {
            Some(Message::Event(event)) => {
                assert_eq!(event.approval.expect("it").id, id(&held), "its last event");
            }
            other => panic!("{other:?}"),
        }
        let ended = stream.message().await.expect_err("the server drains");
        assert_eq!(refusal(&ended), (Code::Unavailable, "DRAINING".to_owned()));
        assert_eq!(exited(&mut process.child).await, Some(0));
    }
}

#[tokio::test]
async fn a_killed_server_loses_nothing_that_it_acknowledged() {
    let database = Database::new().await;
    let mut process = Process::serve(&database.url).await;
    let held = process.caller("backend").await.require("w1", "secret_write").await;
    process.caller("alice").await.approve(&id(&held)).await;
    process.child.kill().await.expect("killed");
    let process = Process::serve(&database.url).await;
    let through = process.caller("backend").await.require("w1", "secret_write").await;
    assert_eq!((through.outcome(), id(&through)), (proto::Outcome::Approved, id(&held)));
}

#[tokio::test]
async fn health_is_open_and_says_that_it_serves() {
    let database = Database::new().await;
    let process = Process::serve(&database.url).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", process.address));
    let channel = endpoint.expect("an address").connect().await.expect("connected");
    let mut health = HealthClient::new(channel);
    for service in ["", "approvals.v1.ApprovalService", "approvals.v1.WorkspaceService"] {
        let check = HealthCheckRequest { service: service.to_owned() };
        let health = health.check(check).await.expect("healthy").into_inner();
        assert_eq!(health.status, 1, "{service} is serving");
    }
    let refused = process.caller("").await.ask(request("w", "secret_write")).await;
    assert_eq!(refused.expect_err("no credential").code(), Code::Unauthenticated);
}

#[tokio::test]
async fn reflection_tells_the_contract_in_its_newer_version_too() {
    let (_, server) = TestServer::new().await;
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address));
    let channel = endpoint.expect("an address").connect().await.expect("connected");
    let list = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let asked = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::iter([list]))
        .await;
    let answer = asked.expect("answered").into_inner().message().await.expect("a message");
    let answer = format!("{answer:?}");
    for service in ["approvals.v1.ApprovalService", "approvals.v1.WorkspaceService"] {
        assert!(answer.contains(service), "{answer}");
    }
}

#[tokio::test]
async fn a_drain_waits_for_nobody_that_is_not_there() {
    let (_, server) = TestServer::new().await;
    let viewer = server.caller("viewer").await;
    let mut stream = viewer.watch(WatchApprovalsRequest::default()).await.expect("a stream");
    stream.message().await.expect("a message").expect("a bookmark");
    assert_eq!(server.drain().await, Drained::Completely);
}

#[tokio::test]
async fn a_new_token_is_random_and_its_entry_opens() {
    let new = || async {
        let output = program().args(["token", "new", "ci"]).output().await.expect("the program");
        String::from_utf8(output.stdout).expect("text")
    };
    let (one, two) = (new().await, new().await);
    let token = one.lines().next().expect("a token");
    assert!(token.starts_with("aa_") && token.len() > 40);
    assert_ne!(one.lines().next(), two.lines().next());
    let entry = one.split_once("[[tokens]]").expect("an entry").1;
    let tokens = Tokens::parse(&format!("[[tokens]]{entry}")).expect("well-formed");
    let now = "2026-01-01T00:00:00Z".parse().expect("a time");
    let identity = tokens.holder(&TokenHash::of(token).expect("long"), now).expect("known");
    assert_eq!(identity.principal.as_str(), "tokens:ci");
    assert!(!entry.contains(token));
}
