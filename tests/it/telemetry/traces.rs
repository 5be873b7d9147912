//! Spans, as a collector is told of them by a server that ends its calls, drains, and exits.

use std::time::Duration;

use approval_authority::proto::{Outcome, RequireApprovalRequest};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use tokio::net::{TcpListener, TcpSocket};
use tonic::{Code, Request, Status};

use super::{
    SERVICE,
    collector::{Collector, attribute, endpoint},
    numbers, until_page,
};
use crate::{
    database::Database,
    harness::{Caller, context, id, request},
    server::Process,
};

/// Nothing is sent but at the end: what comes then has been kept and is flushed by the drain.
const AT_THE_END: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "600000");

const CALLERS_SPAN: &str = "b7ad6b7169203331";

/// The id of a trace of a caller's.
fn trace(number: u8) -> String {
    format!("0af7651916cd43dd8448eb211c8031{number:02x}")
}

/// What a caller says of its own span.
fn parent(number: u8) -> String {
    format!("00-{}-{CALLERS_SPAN}-01", trace(number))
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Asks with these headers.
async fn ask(
    caller: &Caller,
    ask: RequireApprovalRequest,
    headers: &[(&'static str, String)],
) -> Result<Outcome, Status> {
    let mut ask = Request::new(ask);
    for (name, value) in headers {
        ask.metadata_mut().append(*name, value.parse().expect("ASCII"));
    }
    Ok(caller.approvals.clone().require_approval(ask).await?.into_inner().outcome())
}

/// The spans of a trace, by name.
fn of_trace(spans: &[Span], trace: &str, name: &str) -> Vec<Span> {
    let of_it = spans.iter().filter(|span| hex(&span.trace_id) == trace && span.name == name);
    of_it.cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_has_a_span_below_its_callers() {
    let database = Database::new().await;
    let collector = Collector::new().await;
    let process = Process::with_variables(&database.url, &collector.config(), &[AT_THE_END]).await;
    let backend = process.caller("backend").await;
    let told = RequireApprovalRequest {
        context: Some(context(&[("context-for-tests", 1.0)])),
        reason: "reason-for-tests".to_owned(),
        idempotency_key: "key-for-tests".to_owned(),
        ..request("workspace-for-tests", "delete_workspace")
    };
    let state = ("tracestate", "vendor=1".to_owned());
    let first = ask(&backend, told, &[("traceparent", parent(1)), state]).await;
    assert_eq!(first.expect("held"), Outcome::Pending);
    let invalid = ask(&backend, request("", ""), &[("traceparent", parent(2))]).await;
    assert_eq!(invalid.expect_err("no names").code(), Code::InvalidArgument);
    let unsampled = parent(3).replace("-01", "-00");
    ask(&backend, request("w", "delete_workspace"), &[("traceparent", unsampled)])
        .await
        .expect("held");

    // What cannot be read is no parent, and neither are two.
    let malformed = [
        "secret-for-tests".to_owned(),
        parent(4).to_uppercase(),
        parent(4).replace(&trace(4), &"0".repeat(32)),
        parent(4).replace("00-", "ff-"),
        format!("{}-00", parent(4)),
    ];
    for header in malformed.clone() {
        ask(&backend, request("w", "delete_workspace"), &[("traceparent", header)])
            .await
            .expect("held");
    }
    let two = [5, 6].map(|number| ("traceparent", parent(number)));
    ask(&backend, request("w", "delete_workspace"), &two).await.expect("held");
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", process.address));
    let channel = endpoint.expect("an address").connect().await.expect("a server");
    let mut unknown = tonic::client::Grpc::new(channel);
    unknown.ready().await.expect("ready");
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/path-for-tests/Thing");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    unknown.unary(Request::new(()), path, codec).await.expect_err("no such call");
    process.stop().await;

    let spans = collector.spans();
    let name = format!("{SERVICE}/RequireApproval");
    let calls = of_trace(&spans, &trace(1), &name);
    let [call] = &calls[..] else { panic!("{spans:#?}") };
    assert_eq!(hex(&call.parent_span_id), CALLERS_SPAN);
    assert_eq!((call.kind(), call.trace_state.as_str()), (SpanKind::Server, "vendor=1"));
    let said = ["rpc.system", "rpc.service", "rpc.method", "rpc.grpc.status_code"]
        .map(|key| attribute(&call.attributes, key).unwrap_or_default());
    assert_eq!(said, ["grpc", SERVICE, "RequireApproval", "0"]);
    assert_eq!(call.attributes.len(), 4, "and nothing else");
    assert!(call.end_time_unix_nano > call.start_time_unix_nano);

    let refused = &of_trace(&spans, &trace(2), &name)[0];
    assert_eq!(attribute(&refused.attributes, "rpc.grpc.status_code").as_deref(), Some("3"));
    let fault = |span: &Span| span.status.as_ref().is_some_and(|it| it.code() == StatusCode::Error);
    assert!(!fault(refused), "the fault is the caller's");
    let unknown: Vec<&Span> = spans.iter().filter(|span| span.name == "unknown/unknown").collect();
    assert_eq!(unknown.len(), 1, "whatever callers write");
    assert!(fault(unknown[0]), "nobody has implemented it");

    let traces: Vec<String> = spans.iter().map(|span| hex(&span.trace_id)).collect();
    assert!(!(3..=6).any(|number| traces.contains(&trace(number))));
    let roots = spans.iter().filter(|span| span.name == name && span.parent_span_id.is_empty());
    assert_eq!(roots.count(), malformed.len() + 1);
    let bytes = collector.bytes();
    for word in ["for-tests", "tokens:", "delete_workspace"] {
        let there = bytes.windows(word.len()).any(|window| window == word.as_bytes());
        assert!(!there, "{word} is exported");
    }
}

/// Three calls wait while another's transaction is held up, and share the next. Of one of them no trace is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_has_a_span_that_leads_to_each_call_and_back() {
    let database = Database::new().await;
    let collector = Collector::new().await;
    let mut process =
        Process::with_variables(&database.url, &collector.config(), &[AT_THE_END]).await;
    let admin = process.admin().await;
    let (backend, alice) = (process.caller("backend").await, process.caller("alice").await);
    let held = id(&backend.require("w0", "delete_workspace").await);
    let looked = "approval_authority_batch_size_sum{kind=\"look\"}";

    let mut other = database.connect().await;
    let lock = other.transaction().await.expect("begun");
    let row = format!("SELECT FROM approval_authority.approvals WHERE id = '{held}' FOR UPDATE");
    lock.execute(&row, &[]).await.expect("locked");
    let decide = tokio::spawn(async move { alice.approve(&held).await });
    database.until_a_lock_is_waited_for().await;
    let calls = [parent(1), parent(2), parent(3).replace("-01", "-00")].map(|parent| {
        let backend = backend.clone();
        let it = request(&format!("w{}", &parent[30..35]), "delete_workspace");
        tokio::spawn(async move { ask(&backend, it, &[("traceparent", parent)]).await })
    });
    until_page(admin, |page| page[looked] == 4.0).await;
    lock.rollback().await.expect("ended");
    decide.await.expect("no panic");
    for call in calls {
        assert_eq!(call.await.expect("no panic").expect("held"), Outcome::Pending);
    }
    assert_eq!(numbers(admin).await[looked], 4.0);
    process.stop().await;

    let spans = collector.spans();
    let calls = [1, 2].map(|number| {
        of_trace(&spans, &trace(number), &format!("{SERVICE}/RequireApproval"))[0].clone()
    });
    let batches = spans.iter().filter(|span| {
        let linked = |call: &Span| span.links.iter().any(|link| link.span_id == call.span_id);
        span.name == "ledger.commit" && calls.iter().all(linked)
    });
    let [batch] = &batches.collect::<Vec<&Span>>()[..] else { panic!("{spans:#?}") };
    assert_eq!(attribute(&batch.attributes, "batch.size").as_deref(), Some("3"));
    assert_eq!(batch.links.len(), 2, "{batch:?}");
    assert!(calls.iter().any(|call| batch.parent_span_id == call.span_id), "it is in a trace");
    for call in &calls {
        let back = call.links.iter().find(|link| link.span_id == batch.span_id);
        assert_eq!(back.expect("a link").trace_id, batch.trace_id);
        let began = call.events.iter().find(|event| event.name == "ledger.commit");
        let began = began.expect("an event").time_unix_nano;
        assert!(call.start_time_unix_nano < began && began < call.end_time_unix_nano);
        assert!(call.events.iter().any(|event| event.name == "ledger.look"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_of_ours_is_logged_under_the_trace_of_its_call() {
    let database = Database::new().await;
    let collector = Collector::new().await;
    let mut process =
        Process::with_variables(&database.url, &collector.config(), &[AT_THE_END]).await;
    let backend = process.caller("backend").await;
    backend.require("w1", "delete_workspace").await;
    let broken = "ALTER TABLE approval_authority.events RENAME TO elsewhere";
    database.connect().await.batch_execute(broken).await.expect("renamed");
    let told =
        ask(&backend, request("w2", "delete_workspace"), &[("traceparent", parent(1))]).await;
    let told = told.expect_err("nowhere to write it");
    assert_eq!(told.code(), Code::Internal, "{told:?}");
    assert!(told.message().contains(&trace(1)), "{told:?}");
    let log = process.logs("internal error").await;
    assert!(log.last().expect("it").contains(&format!("trace_id={}", trace(1))), "{log:?}");
    process.stop().await;
    let spans = collector.spans();
    for name in [&format!("{SERVICE}/RequireApproval"), "ledger.commit"] {
        let status = of_trace(&spans, &trace(1), name)[0].status.clone().expect("a status");
        assert_eq!((status.code(), status.message.as_str()), (StatusCode::Error, ""), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_unless_the_configuration_says_where_to() {
    let database = Database::new().await;
    let nowhere = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", nowhere.local_addr().expect("an address"));
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", address.as_str())];
    let process = Process::with_variables(&database.url, "", &variables).await;
    let backend = process.caller("backend").await;
    let it = request("w1", "delete_workspace");
    ask(&backend, it, &[("traceparent", parent(1))]).await.expect("held");
    process.stop().await;
    let nowhere = nowhere.into_std().expect("a socket");
    let connected = nowhere.accept().expect_err("nobody");
    assert_eq!(connected.kind(), std::io::ErrorKind::WouldBlock);
}

/// It is away, says so once, and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_costs_no_call() {
    let database = Database::new().await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("one")).expect("a port");
    let config = endpoint(socket.local_addr().expect("an address"));
    let variables = [("OTEL_BSP_SCHEDULE_DELAY", "20")];
    let mut process = Process::with_variables(&database.url, &config, &variables).await;
    let backend = process.caller("backend").await;
    backend.require("w1", "delete_workspace").await;
    process.logs("the collector takes no spans").await;
    backend.require("w2", "delete_workspace").await;
    let mut collector = Collector::on(socket.listen(16).expect("listens"));
    let again = async {
        loop {
            backend.require("w1", "delete_workspace").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = collector.first() => {}
        () = again => {}
    }
    let log = process.logs("the collector takes spans again").await;
    assert!(!log.concat().contains("takes no spans"), "{log:?}");
    process.stop().await;
}

/// It is there and says nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_does_not_answer_ends_with_the_grace() {
    let database = Database::new().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let config = endpoint(silent.local_addr().expect("an address"));
    let variables =
        [("OTEL_BSP_SCHEDULE_DELAY", "20"), ("APPROVAL_AUTHORITY_SERVER__DRAIN_GRACE", "1s")];
    let process = Process::with_variables(&database.url, &config, &variables).await;
    let backend = process.caller("backend").await;
    backend.require("w1", "delete_workspace").await;
    let (_socket, _) = silent.accept().await.expect("the spans begin to be sent");
    for number in 0..20 {
        backend.require(&format!("w{number}"), "delete_workspace").await;
    }
    let log = process.stop().await.join("\n");
    assert!(log.contains("drained: every call has ended"), "{log}");
    assert!(log.contains("the last spans are lost"), "{log}");
}
