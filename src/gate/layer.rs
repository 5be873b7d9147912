//! A tower layer that gates the routes of an HTTP server.
//!
//! What a request is about is said by a function of the caller's. What is not gated passes untouched. What is held never
//! reaches the service behind, and is answered with JSON:
//!
//! | status | body | when |
//! |---|---|---|
//! | 202 | `{"status":"pending_approval","approval_id","action","reason"}` | a person has been asked; the reason is the request's |
//! | 403 | `{"status":"denied","approval_id","action","reason"}` and `Retry-After` | a person said no; the reason is theirs |
//! | 400 | `{"status":"invalid","reason"}` | the operation cannot be asked for |
//! | 503 | `{"status":"unavailable","reason"}` | the authority's word could not be had; why is in the log |
//!
//! The function sees the head of a request and not its body. Where the body decides what is done, have the handler read it and
//! ask [`Gate::require`] with what it says in the context, and answer with [`response`] what is held.
//!
//! What is let through carries a [`Clearance`] among its extensions. A handler that takes what it acts on from there acts
//! on what was approved, and cannot be reached by a way around the layer. What became of it is put on record by what the handler
//! answers: 2xx and 303 (see other) as succeeded, 4xx and 5xx as failed, anything else and no answer as unknown.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderValue, Request, Response, StatusCode, header, request::Parts};
use tower_layer::Layer;
use tower_service::Service;

use super::{Approval, Fault, Gate, Held, Operation, Outcome, Permit, Report};

/// What a request is about.
#[derive(Clone, Debug)]
pub enum Gating {
    /// Nothing that takes an approval. It passes untouched.
    Ungated,
    /// An operation that the authority is asked about.
    Gated(Operation),
    /// Something that takes an approval, and it cannot be told what: the request is refused for this reason.
    Unclear(String),
}

/// What was let through: for handlers to act on. Only this layer makes one.
#[derive(Clone, Debug)]
pub struct Clearance(Arc<(Operation, Option<Approval>)>);

impl Clearance {
    /// The operation that may be executed.
    pub fn operation(&self) -> &Operation {
        &self.0.0
    }

    /// The approval that was consumed for it; none where the policy asks for none.
    pub fn approval(&self) -> Option<&Approval> {
        self.0.1.as_ref()
    }
}

/// Gates what `name` says is gated.
#[derive(Clone, Debug)]
pub struct GateLayer<F> {
    gate: Gate,
    name: F,
}

impl<F: Fn(&Parts) -> Gating> GateLayer<F> {
    /// A layer with a function that says what a request is about.
    pub fn new(gate: Gate, name: F) -> Self {
        Self { gate, name }
    }
}

impl<S, F: Clone> Layer<S> for GateLayer<F> {
    type Service = Gated<S, F>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated { inner, layer: self.clone() }
    }
}

/// A service behind a gate.
#[derive(Clone, Debug)]
pub struct Gated<S, F> {
    inner: S,
    layer: GateLayer<F>,
}

impl<S, F, Asked, Answered> Service<Request<Asked>> for Gated<S, F>
where
    S: Service<Request<Asked>, Response = Response<Answered>> + Clone + Send + 'static,
    S::Future: Send,
    F: Fn(&Parts) -> Gating,
    Asked: Send + 'static,
    Answered: From<String>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Asked>) -> Self::Future {
        // The one that was made ready is used; its clone need not be.
        let next = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, next);
        let (mut parts, body) = request.into_parts();
        let operation = match (self.layer.name)(&parts) {
            Gating::Ungated => return Box::pin(inner.call(Request::from_parts(parts, body))),
            Gating::Gated(operation) => operation,
            Gating::Unclear(why) => {
                let held = Held::Unavailable(Fault::Invalid(why));
                return Box::pin(async move { Ok(response(&held)) });
            }
        };
        let gate = self.layer.gate.clone();
        Box::pin(async move {
            let permit = match gate.require(operation).await {
                Outcome::Permitted(permit) => permit,
                Outcome::Held(held) => return Ok(response(&held)),
            };
            let cleared = (permit.operation().clone(), permit.approval().cloned());
            parts.extensions.insert(Clearance(Arc::new(cleared)));
            let mut account = Account { permit: Some(permit), report: Report::Unknown };
            let answered = inner.call(Request::from_parts(parts, body)).await;
            account.report = match &answered {
                Ok(answered) => became(answered.status()),
                Err(_) => Report::Unknown,
            };
            answered
        })
    }
}

/// What became of an operation, by the answer of its handler.
fn became(status: StatusCode) -> Report {
    match status {
        StatusCode::SEE_OTHER => Report::Succeeded,
        status if status.is_success() => Report::Succeeded,
        status if status.is_client_error() || status.is_server_error() => Report::Failed,
        _ => Report::Unknown,
    }
}

/// Sees to it that what became of an operation is reported, be it that nobody waited for its end, or that it panicked.
struct Account {
    permit: Option<Permit>,
    report: Report,
}

impl Drop for Account {
    fn drop(&mut self) {
        let (Some(permit), report) = (self.permit.take(), self.report) else { return };
        // Nobody's answer waits for it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(fault) = permit.report(report).await {
                    tracing::warn!(%fault, ?report, "what became of an operation is not on record");
                }
            });
        }
    }
}

/// How whoever asked over HTTP is told that their operation is held. For handlers, too, that ask a [`Gate`] themselves.
pub fn response<Body: From<String>>(held: &Held) -> Response<Body> {
    let about = |status: &str, approval: &Approval, reason: &str| {
        serde_json::json!({
            "status": status,
            "approval_id": approval.id,
            "action": approval.action,
            "reason": reason,
        })
    };
    let plain =
        |status: &str, reason: &str| serde_json::json!({"status": status, "reason": reason});
    let (code, body) = match held {
        Held::Pending(approval) => {
            (StatusCode::ACCEPTED, about("pending_approval", approval, &approval.reason))
        }
        Held::Denied(denied) => {
            (StatusCode::FORBIDDEN, about("denied", &denied.approval, denied.reason()))
        }
        Held::Unavailable(Fault::Invalid(why)) => (StatusCode::BAD_REQUEST, plain("invalid", why)),
        Held::Unavailable(fault) => {
            tracing::warn!(%fault, reason = fault.reason(), "an operation is held");
            let why = "the approval authority's word could not be had";
            (StatusCode::SERVICE_UNAVAILABLE, plain("unavailable", why))
        }
    };
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Held::Denied(denied) = held {
        // Rounded up: a second too early is refused again.
        let seconds =
            denied.retry_after.as_secs() + u64::from(denied.retry_after.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}
