//! Around all services: each call is counted and has a span, from its headers to the end of its answer.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use opentelemetry::propagation::Extractor;
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::{
    Status,
    body::Body,
    codegen::{Bytes, Service, http},
};
use tower_layer::Layer;

use crate::{
    metrics::{Calls, Described, InProgress},
    traces,
};

/// The header, or the trailer, that says how a call ended.
const STATUS: &str = "grpc-status";

/// Every method of these descriptors.
pub(super) fn methods(descriptors: &[u8]) -> Vec<Described> {
    let set = FileDescriptorSet::decode(descriptors).unwrap_or_default();
    let mut methods = Vec::new();
    for file in &set.file {
        for service in &file.service {
            let full_name = format!("{}.{}", file.package(), service.name());
            methods.extend(service.method.iter().map(|method| Described {
                service: full_name.clone(),
                method: method.name().to_owned(),
                kind: match (method.client_streaming(), method.server_streaming()) {
                    (false, false) => "unary",
                    (false, true) => "server_stream",
                    (true, false) => "client_stream",
                    (true, true) => "bidi_stream",
                },
            }));
        }
    }
    methods
}

/// Counts the calls to a service.
#[derive(Clone)]
pub(super) struct Measure(pub(super) Arc<Calls>);

impl<S> Layer<S> for Measure {
    type Service = Measured<S>;

    fn layer(&self, service: S) -> Measured<S> {
        Measured { calls: self.0.clone(), service }
    }
}

/// A service whose calls are counted.
#[derive(Clone)]
pub(super) struct Measured<S> {
    calls: Arc<Calls>,
    service: S,
}

impl<S> Service<http::Request<Body>> for Measured<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let counted = self.calls.begin(request.uri().path());
        let span = traces::Call::begin(counted.method(), &Headers(request.headers()));
        let mut call = Call { counted, span };
        let answer = self.service.call(request);
        Box::pin(async move {
            let answer = call.span.trace().clone().carry(answer).await?;
            if let Some(code) = code(answer.headers()) {
                call.ends_with(code);
            }
            Ok(answer.map(|body| Body::new(Counted { body, call })))
        })
    }
}

fn code(headers: &http::HeaderMap) -> Option<i32> {
    headers.get(STATUS)?.to_str().ok()?.parse().ok()
}

/// Where a caller says what it calls for. Of two that differ nobody knows which is meant.
struct Headers<'a>(&'a http::HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let mut values = self.0.get_all(key).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// A call until the end of its answer.
struct Call {
    counted: InProgress,
    span: traces::Call,
}

impl Call {
    fn ends_with(&mut self, code: i32) {
        self.counted.ends_with(code);
        self.span.ends_with(code);
    }
}

/// An answer on its way. If it is dropped before its end, its caller has gone away.
struct Counted {
    body: Body,
    call: Call,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let within = self.call.span.trace().attach();
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        drop(within);
        match &frame {
            Some(Ok(frame)) => {
                if let Some(code) = frame.trailers_ref().and_then(code) {
                    self.call.ends_with(code);
                }
            }
            Some(Err(status)) => self.call.ends_with(status.code().into()),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
