//! Requests of every call of the contract, byte by byte, into the services behind their guard. The database is not there: what
//! gets as far as to ask it has passed every check of its fields.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use proptest::{collection::vec, prelude::*, sample::Index};
use prost::Message;
use prost_types::{FileDescriptorSet, field_descriptor_proto::Type};
use tokio::{runtime::Runtime, sync::watch};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{Bytes, Service, http},
};
use tonic_types::StatusExt;

use super::{
    approvals::ApprovalService,
    connections::{Connections, Seat},
    convert::fuzz::contexts,
    guard::{Guard, Guarded},
    limits::{Limits, Places},
    listener::Peer,
    page,
    workspaces::WorkspaceService,
};
use crate::{
    auth::{
        Access,
        jwt::Issuers,
        tokens::{self, Tokens},
    },
    feed::{Feed, cursor::Cursor},
    fuzz::{Outcome, can_be_shown, few_slips, run, spoilt, texts},
    ledger::Ledger,
    metrics::Outcomes,
    names::Namespace,
    policy::file,
    proto::{
        self, approval_service_server::ApprovalServiceServer,
        workspace_service_server::WorkspaceServiceServer,
    },
    store::{Store, StoreConfig},
};

/// What clients in every language take as headers and trailers, unless told otherwise.
const HEADER_BYTES: usize = 8 * 1024;

const TOKEN: &str = "a token of the fuzz tests";

/// Every role everywhere, and no action that is gated: nothing gets past the policy.
const POLICY: &str = r#"
[actions.something_else]
[[bindings]]
role = "requester"
principals = ["tokens:caller"]
namespaces = ["*"]
workspaces = ["*"]
[[bindings]]
role = "approver"
principals = ["tokens:caller"]
namespaces = ["*"]
workspaces = ["*"]
actions = ["*"]
[[bindings]]
role = "admin"
principals = ["tokens:caller"]
namespaces = ["*"]
workspaces = ["*"]
"#;

/// The services, with a caller who may do everything.
struct Rig {
    runtime: Runtime,
    approvals: Guarded<ApprovalServiceServer<Arc<ApprovalService>>>,
    workspaces: Guarded<WorkspaceServiceServer<WorkspaceService>>,
    seat: Seat,
}

/// What came of a request.
struct Answer {
    status: Status,
    header_bytes: usize,
}

impl Rig {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let store = Store::new(&StoreConfig {
            url: "host=/nowhere dbname=none".to_owned(),
            notify_url: None,
            pool_size: 1,
            folder: "/".into(),
        });
        let store = store.unwrap();
        let access = Access {
            tokens: Tokens::parse(&tokens::entry("caller", TOKEN, &[]).unwrap()).unwrap(),
            issuers: Issuers::default(),
            mtls: None,
            policy: Arc::new(file::parse(POLICY).unwrap()),
        };
        let access = watch::Sender::new(Arc::new(access)).subscribe();
        let unread = Duration::from_secs(60);
        let limits = Limits {
            connections: 1,
            calls: 1_000,
            calls_per_principal: 1_000,
            waiters: 1_000,
            waiters_per_principal: 1_000,
            watchers: 1_000,
            watchers_per_principal: 1_000,
            unread,
            silent: unread,
        };
        let guard = Guard { access: access.clone(), places: Places::new(limits), unread };
        let approvals = ApprovalServiceServer::new(Arc::new(ApprovalService {
            store: store.clone(),
            ledger: Ledger::new(store.clone()),
            feed: Feed::new(store.clone()),
            access,
            unread,
            draining: CancellationToken::new(),
            outcomes: Outcomes::default(),
        }));
        let workspaces = WorkspaceServiceServer::new(WorkspaceService { store });
        let (approvals, workspaces) = (guard.protect(approvals), guard.protect(workspaces));
        let seat = Connections::new(1).seat().unwrap();
        Self { runtime, approvals, workspaces, seat }
    }

    /// Makes a call with this body, whatever it holds.
    fn call(&self, path: &str, body: Vec<u8>) -> Answer {
        let mut request = http::Request::post(path)
            .header("content-type", "application/grpc")
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(Body::new(Full::new(Bytes::from(body))))
            .unwrap();
        let peer = Peer { certificate: None, line: self.seat.line().clone() };
        request.extensions_mut().insert(peer);
        self.runtime.block_on(async {
            let answer = if path.contains("WorkspaceService") {
                self.workspaces.clone().call(request).await
            } else {
                self.approvals.clone().call(request).await
            };
            let (head, body) = answer.unwrap().into_parts();
            let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
            let status = Status::from_header_map(&head.headers);
            let status = status.or_else(|| Status::from_header_map(&trailers));
            let size = |headers: &http::HeaderMap| -> usize {
                headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
            };
            let header_bytes = size(&head.headers) + size(&trailers);
            Answer { status: status.expect("a status"), header_bytes }
        })
    }

    /// The fields that a message is refused for; none if it is not.
    fn blamed(&self, path: &str, message: &[u8]) -> Result<BTreeSet<String>, TestCaseError> {
        self.examine(path, framed(message))
    }

    /// The same of a body. Whatever it is, it comes to a status that says what is wrong, and can be shown.
    fn examine(&self, path: &str, body: Vec<u8>) -> Result<BTreeSet<String>, TestCaseError> {
        let Answer { status, header_bytes } = self.call(path, body);
        prop_assert!(header_bytes <= HEADER_BYTES, "{} bytes: {:?}", header_bytes, status);
        can_be_shown(status.message())?;
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.as_str());
        let blamed: BTreeSet<String> = match details.bad_request() {
            None => BTreeSet::new(),
            Some(bad) => bad.field_violations.iter().map(|one| one.field.clone()).collect(),
        };
        for violation in details.bad_request().into_iter().flat_map(|bad| &bad.field_violations) {
            can_be_shown(&violation.description)?;
        }
        match (status.code(), reason) {
            (Code::InvalidArgument, Some("FIELD_INVALID" | "CURSOR_INVALID")) => {
                prop_assert!(!blamed.is_empty(), "{:?}", status);
            }
            // It has got past its fields.
            (Code::Unavailable, Some("STORE_UNAVAILABLE"))
            | (Code::FailedPrecondition, Some("ACTION_UNKNOWN"))
            | (Code::Ok, None) => prop_assert!(blamed.is_empty(), "{:?}", status),
            _ => prop_assert!(false, "{}: {:?}", path, status),
        }
        Ok(blamed)
    }
}

/// A message as gRPC sends it.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat()
}

/// A call of the contract: its fields by number, and a request that passes.
struct Call {
    path: String,
    fields: Vec<(u32, Type)>,
    good: Vec<u8>,
}

fn calls() -> Vec<Call> {
    let set = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
    let file = set.file.iter().find(|file| file.package() == "approvals.v1").unwrap();
    let methods = file
        .service
        .iter()
        .flat_map(|service| service.method.iter().map(move |method| (service.name(), method)));
    let calls = methods.map(|(service, method)| {
        let input = method.input_type().rsplit('.').next().unwrap();
        let message = file.message_type.iter().find(|message| message.name() == input).unwrap();
        let fields = message
            .field
            .iter()
            .map(|field| (u32::try_from(field.number()).unwrap(), field.r#type()));
        Call {
            path: format!("/approvals.v1.{service}/{}", method.name()),
            fields: fields.collect(),
            good: good(method.name()),
        }
    });
    calls.collect()
}

fn good(method: &str) -> Vec<u8> {
    let approval_id = "01890000-0000-7000-8000-000000000000".to_owned();
    let reason = "because".to_owned();
    match method {
        "RequireApproval" => proto::RequireApprovalRequest {
            workspace_id: "w1".to_owned(),
            action: "unlisted".to_owned(),
            ..Default::default()
        }
        .encode_to_vec(),
        "Decide" => proto::DecideRequest {
            approval_id,
            decision: proto::Decision::Approve.into(),
            // To deny takes one, and it is not the decision that is wrong without.
            reason,
            ..Default::default()
        }
        .encode_to_vec(),
        "RevokeApproval" => {
            proto::RevokeApprovalRequest { approval_id, reason, ..Default::default() }
                .encode_to_vec()
        }
        "ReportResult" => proto::ReportResultRequest {
            approval_id,
            result: proto::Result::Failed.into(),
            ..Default::default()
        }
        .encode_to_vec(),
        "PutWorkspace" => {
            let workspace = proto::Workspace { id: "w1".to_owned(), ..Default::default() };
            proto::PutWorkspaceRequest { workspace: Some(workspace) }.encode_to_vec()
        }
        "DeleteWorkspace" => {
            proto::DeleteWorkspaceRequest { workspace_id: "w1".to_owned(), ..Default::default() }
                .encode_to_vec()
        }
        "GetApproval" | "WithdrawApproval" => {
            proto::GetApprovalRequest { approval_id, ..Default::default() }.encode_to_vec()
        }
        _ => Vec::new(),
    }
}

/// What a field is given, of a kind that it may not be.
#[derive(Clone, Debug)]
struct Given {
    field: Index,
    number: i64,
    text: String,
    message: Vec<u8>,
    times: usize,
}

fn given() -> impl Strategy<Value = Given> {
    let numbers = prop_oneof![
        6 => -1..12i64,
        1 => any::<i64>(),
        1 => any::<i32>().prop_map(i64::from),
    ];
    let text = prop_oneof![6 => texts(), 1 => tokens_made_up()];
    let durations = (prop_oneof![-1..62i64, any::<i64>()], prop_oneof![Just(0), any::<i32>()]);
    let message = prop_oneof![
        4 => contexts().prop_map(|context| context.encode_to_vec()),
        2 => durations.prop_map(|(seconds, nanos)| prost_types::Duration { seconds, nanos }.encode_to_vec()),
        2 => [texts(), texts(), texts(), texts()].prop_map(|[namespace, id, parent_id, display_name]| {
            proto::Workspace { namespace, id, parent_id, display_name }.encode_to_vec()
        }),
        // Values in lists in values, deeper than is decoded.
        1 => (0..120usize).prop_map(nested),
        1 => vec(any::<u8>(), 0..20),
    ];
    let times = prop_oneof![8 => Just(1), 1 => 0..1_200usize];
    (any::<Index>(), numbers, text, message, times).prop_map(
        |(field, number, text, message, times)| Given { field, number, text, message, times },
    )
}

/// Page tokens and cursors that are bound as they should be, to something that nobody gave out.
fn tokens_made_up() -> impl Strategy<Value = String> {
    let namespace = Namespace::default_namespace;
    prop_oneof![
        vec(any::<u8>(), 0..140)
            .prop_map(move |last| page::token(&("workspaces", &namespace()), &last)),
        vec(any::<u8>(), 0..40).prop_map(move |last| {
            let nothing: [u8; 0] = [];
            page::token(&(&namespace(), &nothing, false, &nothing, &nothing), &last)
        }),
        (any::<u128>(), any::<i64>(), any::<i64>()).prop_map(move |(epoch, revision, tag)| {
            let epoch = uuid::Uuid::from_u128(epoch);
            Cursor { namespace: namespace(), epoch, revision, tag }.encode()
        }),
    ]
}

fn nested(levels: usize) -> Vec<u8> {
    (0..levels).fold(Vec::new(), |inner, _| {
        let list = length_delimited(1, &inner);
        length_delimited(6, &list)
    })
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn length_delimited(field: u32, content: &[u8]) -> Vec<u8> {
    [varint(u64::from(field << 3 | 2)), varint(content.len() as u64), content.to_vec()].concat()
}

impl Given {
    /// As one of a call's fields, by number.
    fn field(&self, call: &Call) -> (u32, Vec<u8>) {
        if call.fields.is_empty() {
            return (9, length_delimited(9, &self.message));
        }
        let (field, kind) = self.field.get(&call.fields);
        let one = match kind {
            Type::String => length_delimited(*field, self.text.as_bytes()),
            Type::Message => length_delimited(*field, &self.message),
            _ => [varint(u64::from(field << 3)), varint(self.number.cast_unsigned())].concat(),
        };
        (*field, one.repeat(self.times))
    }
}

#[test]
fn a_request_is_carried_out_or_everything_that_is_wrong_with_it_is_told() {
    let (rig, calls) = (Rig::new(), calls());
    assert_eq!(calls.len(), 12);
    for call in &calls {
        assert_eq!(rig.blamed(&call.path, &call.good).unwrap(), BTreeSet::new(), "{}", call.path);
    }
    let cases = (any::<Index>(), vec(given(), 0..5), few_slips());
    let check = |(call, given, slips): (Index, Vec<Given>, Vec<_>)| -> Outcome {
        let call = call.get(&calls);
        let mut fields: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        for given in &given {
            let (field, bytes) = given.field(call);
            fields.entry(field).or_default().extend(bytes);
        }
        let with = |fields: &[&[u8]]| [&call.good[..], &fields.concat()].concat();
        let whole = with(&fields.values().map(Vec::as_slice).collect::<Vec<_>>());
        let blamed = rig.blamed(&call.path, &spoilt(&whole, &slips))?;
        if blamed.is_empty() {
            return Ok("passed");
        }
        let request = |blamed: &BTreeSet<String>| blamed.contains("request");
        if !slips.is_empty() || request(&blamed) {
            return Ok(if request(&blamed) { "not decoded" } else { "refused" });
        }
        for bytes in fields.values() {
            for field in rig.blamed(&call.path, &with(&[bytes]))? {
                // Where a list or a log goes on is looked at when it is known which.
                let later = ["page_token", "after_cursor"].contains(&field.as_str());
                let told = blamed.contains(&field);
                prop_assert!(told || later, "{}: {} is not told: {:?}", call.path, field, blamed);
            }
        }
        Ok("refused")
    };
    run("requests", &["passed", "refused", "not decoded"], cases, check);
}

#[test]
fn a_body_that_is_no_message_is_told_to_be_none() {
    let (rig, calls) = (Rig::new(), calls());
    let frame = prop_oneof![
        vec(any::<u8>(), 0..300),
        // Compressed, or longer or shorter than it is.
        (0..3u8, prop_oneof![0..40u32, any::<u32>()], vec(any::<u8>(), 0..40)).prop_map(
            |(flag, length, message)| [&[flag], &length.to_be_bytes()[..], &message].concat()
        ),
        // Several messages, where there is one.
        (vec(any::<u8>(), 0..20), 2..4usize)
            .prop_map(|(message, times)| framed(&message).repeat(times)),
    ];
    run("bodies", &["refused"], (any::<Index>(), frame), |(call, body)| {
        let Call { path, .. } = call.get(&calls);
        Ok(if rig.examine(path, body)?.is_empty() { "passed" } else { "refused" })
    });
}
