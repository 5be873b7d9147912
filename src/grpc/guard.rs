//! In front of both services: who calls, and whether any role of theirs opens the call at all. Where in the
//! tree the role must hold is each call's own question.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use jiff::Timestamp;
use tokio::sync::watch;
use tonic::{
    Code, Request, Status,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
};

use super::listener::Peer;
use crate::{
    auth::{
        Access, Caller, Shown,
        permissions::{grants_for, refusal},
    },
    error::Error,
};

/// What callers are checked against.
#[derive(Clone, Debug)]
pub struct Guard {
    /// Asked anew at each call.
    pub access: watch::Receiver<Arc<Access>>,
}

impl Guard {
    /// Puts a service behind the guard.
    pub fn protect<S>(&self, service: S) -> Guarded<S> {
        Guarded { guard: self.clone(), service }
    }

    /// Who makes a call, if any role of theirs opens it.
    async fn admit(&self, call: &str, shown: Shown<'_>) -> Result<Caller, Error> {
        let access = self.access.borrow().clone();
        let grants = grants_for(call);
        let caller = access.admit(shown, grants, Timestamp::now()).await?;
        if caller.holds_any() {
            return Ok(caller);
        }
        tracing::info!(principal = %caller.principal, call, "no role for the call");
        Err(refusal(grants))
    }
}

/// The one token that a call shows, if it shows any.
fn token(headers: &http::HeaderMap) -> Result<Option<&str>, Error> {
    let mut given = headers.get_all(http::header::AUTHORIZATION).iter();
    let credential = match (given.next(), given.next()) {
        (None, _) => return Ok(None),
        (Some(credential), None) => credential,
        (Some(_), Some(_)) => return Err(Error::Unauthenticated),
    };
    let credential = credential.to_str().map_err(|_| Error::Unauthenticated)?;
    match credential.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            Ok(Some(token.trim_start()))
        }
        _ => Err(Error::Unauthenticated),
    }
}

/// A service behind the guard.
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    guard: Guard,
    service: S,
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let guard = self.guard.clone();
        // The one that has said that it is ready.
        let next = self.service.clone();
        let mut service = mem::replace(&mut self.service, next);
        let given = token(request.headers()).map(|token| token.map(str::to_owned));
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        Box::pin(async move {
            let admitted = match given {
                Ok(bearer) => {
                    let call = request.uri().path().to_owned();
                    let certificate = peer.certificate.as_ref();
                    guard.admit(&call, Shown { bearer: bearer.as_deref(), certificate }).await
                }
                Err(error) => Err(error),
            };
            match admitted {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    service.call(request).await.map(explain)
                }
                Err(error) => Ok(Status::from(error).into_http()),
            }
        })
    }
}

/// A request that the transport could not decode, or that was longer than it reads, is refused by it in its own
/// words and under codes that mean something else in the contract. Statuses of ours have details, and pass.
fn explain(response: http::Response<Body>) -> http::Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(status) if status.details().is_empty() => match status.code() {
            Code::Internal | Code::OutOfRange => {
                let why = "cannot be decoded, or is over the limit of a message";
                Status::from(Error::invalid("request", why)).into_http()
            }
            _ => response,
        },
        Some(_) | None => response,
    }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

/// The caller that the guard has let in. A call that has not come by it has none.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Caller, Error> {
    request.extensions().get::<Caller>().cloned().ok_or(Error::Unauthenticated)
}
