//! What those who run the service see of it: whether it lives, whether it is ready, and what it counts.

use std::{collections::BTreeMap, net::SocketAddr, process::Stdio, time::Duration};

use approval_authority::embedded::{Cluster, Keep};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    database::{Database, cluster_folder, deploy, installation},
    harness::{id, request},
    processes::Silence,
    server::{Process, admin_of, log_of, program, until, write_deployment},
};

mod batches;
pub mod collector;
mod documents;
mod following;
mod keeping;
mod parts;
mod places;
mod traces;

/// The status of an answer and what it says.
pub async fn get(admin: SocketAddr, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(admin).await.expect("somebody listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: {admin}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.expect("a status"), body.to_owned())
}

/// Every number on the page, by its name and labels as they stand there.
pub async fn numbers(admin: SocketAddr) -> BTreeMap<String, f64> {
    let (status, page) = get(admin, "/metrics").await;
    assert_eq!(status, 200, "{page}");
    let lines = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (name, number) = line.rsplit_once(' ').expect("a number");
            (name.to_owned(), number.parse().expect("a number"))
        })
        .collect()
}

/// Waits until the page says so.
pub async fn until_page(admin: SocketAddr, holds: impl Fn(&BTreeMap<String, f64>) -> bool) {
    let looks = async {
        while !holds(&numbers(admin).await) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looks).await.expect("the page comes to say so");
}

fn series(name: &str, method: &str, kind: &str, code: &str) -> String {
    let service = if method == "Check" { "grpc.health.v1.Health" } else { SERVICE };
    let code = if code.is_empty() { String::new() } else { format!("grpc_code=\"{code}\",") };
    format!(
        "{name}{{{code}grpc_method=\"{method}\",grpc_service=\"{service}\",grpc_type=\"{kind}\"}}"
    )
}

const SERVICE: &str = "approvals.v1.ApprovalService";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_ready_from_when_it_has_seen_the_database_until_it_drains() {
    let folder = cluster_folder();
    let cluster = Cluster::start(&installation(), &folder, &[], Keep::Data).await.expect("started");
    let url = deploy(&cluster, "approvals").await;
    cluster.stop();

    let deployment = tempfile::tempdir().expect("a folder");
    let config = write_deployment(deployment.path(), &url, "");
    let mut command = program();
    command.arg("serve").arg("--config").arg(config).env("RUST_LOG", "approval_authority=info");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program");
    let mut log = log_of(&mut child);
    let admin = admin_of(&mut log).await;
    until(&mut log, "waiting for the database").await;
    let failed = "approval_authority_database_connections_failed_total";
    assert!(numbers(admin).await[failed] >= 1.0);
    assert_eq!(numbers(admin).await["approval_authority_database_connections_made_total"], 0.0);
    assert_eq!(numbers(admin).await["approval_authority_ready"], 0.0);
    assert_eq!(get(admin, "/livez").await, (200, "alive\n".to_owned()));
    assert_eq!(get(admin, "/readyz").await, (503, "starting\n".to_owned()));
    assert_eq!(get(admin, "/metrics").await.0, 200);
    assert_eq!(get(admin, "/").await.0, 404);

    let cluster =
        Cluster::start(&installation(), &folder, &[], Keep::Nothing).await.expect("again");
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(
        child.stdout.take().expect("piped"),
    ));
    let line = lines.next_line().await.expect("output").expect("a line");
    let address = line.strip_prefix("listening on ").expect("an address").to_owned();
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let mut health = HealthClient::new(endpoint.connect().await.expect("a server"));
    let service = HealthCheckRequest { service: String::new() };
    let mut status = health.watch(service.clone()).await.expect("a stream").into_inner();
    let first = status.message().await.expect("a message").expect("no end");
    assert_eq!(first.status(), ServingStatus::Serving);
    assert_eq!(get(admin, "/readyz").await, (200, "ready\n".to_owned()));

    // A database that is there and says nothing: a call finds out, and nobody else has to care.
    let silence = Silence::of(&cluster);
    let backend = crate::harness::Caller::new(address.parse().expect("one"), "backend").await;
    let mut ask = tonic::Request::new(request("w1", "delete_workspace"));
    ask.set_timeout(Duration::from_secs(1));
    let refused = backend.approvals.clone().require_approval(ask).await.expect_err("no database");
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(get(admin, "/livez").await.0, 200);
    assert_eq!(get(admin, "/readyz").await.0, 200);
    let asked = health.check(service).await.expect("an answer").into_inner();
    assert_eq!(asked.status(), ServingStatus::Serving);
    drop(silence);
    let held = loop {
        match backend.ask(request("w1", "delete_workspace")).await {
            Ok(answer) => break id(&answer),
            Err(refused) => assert_eq!(refused.code(), Code::Unavailable),
        }
    };

    // The stream of health is a call in progress, so the drain goes on until the test has looked.
    let pid = Pid::from_raw(child.id().expect("running").cast_signed());
    kill(pid, Signal::SIGTERM).expect("signalled");
    let second = status.message().await.expect("a message").expect("no end");
    assert_eq!(second.status(), ServingStatus::NotServing);
    assert_eq!(get(admin, "/readyz").await, (503, "draining\n".to_owned()));
    assert_eq!(get(admin, "/livez").await.0, 200, "a server that drains is not to be killed");
    assert!(!held.is_empty());
    drop((status, health, backend));
    child.wait().await.expect("exited");
    cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_counted_by_method_and_by_how_they_end() {
    let database = Database::new().await;
    let mut process = Process::serve(&database.url).await;
    let admin = process.admin().await;
    let (backend, alice) = (process.caller("backend").await, process.caller("alice").await);
    let nobody = process.caller("").await;

    let held = id(&backend.require("w1", "delete_workspace").await);
    alice.approve(&held).await;
    backend.require("w1", "delete_workspace").await;
    nobody.ask(request("w1", "delete_workspace")).await.expect_err("no credential");
    alice.get("no-id").await.expect_err("no id");
    let stream = alice.watch(Default::default()).await.expect("a stream");
    let mut unknown = tonic::client::Grpc::new(
        Endpoint::from_shared(format!("http://{}", process.address))
            .expect("an address")
            .connect()
            .await
            .expect("a server"),
    );
    for path in ["/approvals.v1.ApprovalService/Nothing", "/some.Other/Thing"] {
        unknown.ready().await.expect("ready");
        let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckRequest>::default();
        let request = tonic::Request::new(HealthCheckRequest { service: String::new() });
        let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
        unknown.unary(request, path, codec).await.expect_err("no such call");
    }

    let page = numbers(admin).await;
    let started = |method, kind| page[&series("grpc_server_started_total", method, kind, "")];
    let handled =
        |method, kind, code| page[&series("grpc_server_handled_total", method, kind, code)];
    assert_eq!(started("RequireApproval", "unary"), 3.0);
    assert_eq!(handled("RequireApproval", "unary", "OK"), 2.0);
    assert_eq!(handled("RequireApproval", "unary", "Unauthenticated"), 1.0);
    assert_eq!(handled("GetApproval", "unary", "InvalidArgument"), 1.0);
    assert_eq!(handled("Decide", "unary", "OK"), 1.0);
    let seconds = series("grpc_server_handling_seconds_count", "Decide", "unary", "");
    assert_eq!(page[&seconds], 1.0);
    assert_eq!(started("WatchApprovals", "server_stream"), 1.0);
    assert_eq!(handled("WatchApprovals", "server_stream", "OK"), 0.0, "it goes on");
    let others = "grpc_server_started_total{grpc_method=\"unknown\",grpc_service=\"unknown\",grpc_type=\"unary\"}";
    assert_eq!(page[others], 2.0, "whatever callers write is one series");
    assert!(!page.keys().any(|name| name.contains("w1") || name.contains("alice")));

    drop(stream);
    let gone = series("grpc_server_handled_total", "WatchApprovals", "server_stream", "Canceled");
    until_page(admin, |page| page[&gone] == 1.0).await;
}

/// The listener is a second way in: what waits there and says nothing takes no place from who asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_connect_to_the_admin_listener_and_say_nothing_give_way() {
    let database = Database::new().await;
    let mut process = Process::serve(&database.url).await;
    let admin = process.admin().await;
    let mut first = TcpStream::connect(admin).await.expect("connected");
    let mut silent = Vec::new();
    for _ in 0..80 {
        silent.push(TcpStream::connect(admin).await.expect("connected"));
    }
    assert_eq!(get(admin, "/livez").await.0, 200);
    let mut end = [0];
    let closed = first.read(&mut end).await;
    assert!(matches!(closed, Ok(0) | Err(_)), "the oldest has given way");
    let page = numbers(admin).await;
    assert!(page["process_open_fds"] < 64.0 + 60.0, "{}", page["process_open_fds"]);
}
