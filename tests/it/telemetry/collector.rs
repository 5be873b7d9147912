//! What an OTLP collector would be told.

use std::net::SocketAddr;

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message;
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// Listens until the test ends, and remembers everything.
pub struct Collector {
    pub address: SocketAddr,
    told: watch::Receiver<Vec<ExportTraceServiceRequest>>,
}

struct Told(watch::Sender<Vec<ExportTraceServiceRequest>>);

#[tonic::async_trait]
impl TraceService for Told {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send_modify(|told| told.push(request.into_inner()));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub async fn new() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.expect("a port"))
    }

    pub fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("an address");
        let (sender, told) = watch::channel(Vec::new());
        let service = TraceServiceServer::new(Told(sender));
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        Self { address, told }
    }

    /// The key that has a server tell it.
    pub fn config(&self) -> String {
        endpoint(self.address)
    }

    /// Waits for the first spans.
    pub async fn first(&mut self) {
        let told = self.told.wait_for(|told| !told.is_empty());
        let told = tokio::time::timeout(std::time::Duration::from_secs(30), told).await;
        told.expect("spans come").expect("it listens");
    }

    pub fn spans(&self) -> Vec<Span> {
        let told = self.told.borrow();
        let of_resources = told.iter().flat_map(|request| &request.resource_spans);
        let of_scopes = of_resources.flat_map(|resource| &resource.scope_spans);
        of_scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// All that it was told, as it came over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        self.told.borrow().iter().flat_map(Message::encode_to_vec).collect()
    }
}

/// The key that has a server send spans there.
pub fn endpoint(address: SocketAddr) -> String {
    format!("[telemetry]\notlp_endpoint = \"http://{address}\"\n")
}

/// What a span says of itself.
pub fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?;
    match value.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{key} is {other:?}"),
    }
}
