//! In front of both services: who calls, and whether any role of theirs opens the call at all. Where in the
//! tree the role must hold is each call's own question.

use std::{
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{Either, MapOk, TryFutureExt};
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
    auth::{Access, Caller, Shown, permissions::roles_for},
    error::Error,
    policy::Role,
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

    fn admit(&self, request: &http::Request<Body>) -> Result<Caller, Error> {
        let access = self.access.borrow().clone();
        let peer = request.extensions().get::<Peer>();
        let shown = Shown {
            bearer: token(request.headers())?,
            certificate: peer.and_then(|peer| peer.certificate.as_ref()),
        };
        let caller = access.admit(shown, Timestamp::now())?;
        let roles = roles_for(request.uri().path());
        if caller.holds_any(roles) {
            return Ok(caller);
        }
        tracing::info!(principal = %caller.principal, call = request.uri().path(), "no role for the call");
        // The contract has a name of its own for a decision by somebody who may decide nothing.
        Err(if roles == [Role::Approver] { Error::NotAnApprover } else { Error::RoleMissing })
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
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<
        MapOk<S::Future, fn(S::Response) -> S::Response>,
        Ready<Result<S::Response, S::Error>>,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        match self.guard.admit(&request) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                let explain: fn(S::Response) -> S::Response = explain;
                Either::Left(self.service.call(request).map_ok(explain))
            }
            Err(error) => Either::Right(ready(Ok(Status::from(error).into_http()))),
        }
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
