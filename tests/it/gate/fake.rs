//! An authority that says what a test tells it to.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use approval_authority::{
    gate::Operation,
    proto::{Approval, ApprovalState, Outcome, RequireApprovalRequest, RequireApprovalResponse},
};
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{Service, http},
    server::{Grpc, NamedService, UnaryService},
};

type Script = dyn FnMut(&RequireApprovalRequest) -> Result<RequireApprovalResponse, Status> + Send;

/// It answers calls to the gate, and remembers them.
#[derive(Clone)]
pub struct Fake {
    pub address: SocketAddr,
    script: Arc<Mutex<Script>>,
    asked: Arc<Mutex<Vec<RequireApprovalRequest>>>,
}

impl Fake {
    pub async fn new(
        script: impl FnMut(&RequireApprovalRequest) -> Result<RequireApprovalResponse, Status>
        + Send
        + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(script));
        let fake = Self { address, script, asked: Arc::default() };
        let serving = tonic::transport::Server::builder().add_service(fake.clone());
        tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
        fake
    }

    /// The keys of the calls so far.
    pub fn keys(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().map(|asked| asked.idempotency_key.clone()).collect()
    }
}

/// What lets a call through.
pub fn through(asked: &RequireApprovalRequest) -> RequireApprovalResponse {
    let operation = Operation::new(&asked.workspace_id, &asked.action);
    let operation = operation.context_struct(asked.context.clone().expect("set"));
    let hash = approval_authority::digest::sha256_hex(
        [asked.workspace_id.as_str(), &asked.action, operation.parameters()].join("\0"),
    );
    let approval = Approval {
        id: "0198c0de-0000-7000-8000-000000000000".to_owned(),
        namespace: asked.namespace.clone(),
        workspace_id: asked.workspace_id.clone(),
        action: asked.action.clone(),
        context: asked.context.clone(),
        request_hash: hash,
        state: ApprovalState::Consumed.into(),
        ..Default::default()
    };
    RequireApprovalResponse {
        outcome: Outcome::Approved.into(),
        approval: Some(approval),
        ..Default::default()
    }
}

impl UnaryService<RequireApprovalRequest> for Fake {
    type Response = RequireApprovalResponse;
    type Future = BoxFuture<'static, Result<Response<Self::Response>, Status>>;

    fn call(&mut self, request: Request<RequireApprovalRequest>) -> Self::Future {
        let asked = request.into_inner();
        let answer = self.script.lock().unwrap_or_else(PoisonError::into_inner)(&asked);
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        Box::pin(async move {
            match answer {
                // What stands for a server that says nothing.
                Err(status) if status.message() == SILENCE => std::future::pending().await,
                answer => answer.map(Response::new),
            }
        })
    }
}

pub const SILENCE: &str = "silence";

impl NamedService for Fake {
    const NAME: &'static str = "approvals.v1.ApprovalService";
}

impl Service<http::Request<Body>> for Fake {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if !request.uri().path().ends_with("/RequireApproval") {
            return Box::pin(async { Ok(Status::unimplemented("").into_http()) });
        }
        let fake = self.clone();
        Box::pin(async move {
            let codec = tonic_prost::ProstCodec::default();
            Ok(Grpc::new(codec).unary(fake, request).await)
        })
    }
}
