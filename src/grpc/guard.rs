//! In front of both services: who calls, whether any role of theirs opens the call at all, and whether there is a place for
//! it. Where in the tree the role must hold is each call's own question. Nothing of a request is read before.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::watch;
use tonic::{
    Code, Request, Status,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
};

use super::{
    answer,
    connections::{Busy, Line},
    limits::{Place, Places},
    listener::Peer,
    taken::Taken,
};
use crate::{
    auth::{
        Access, Caller, Shown,
        permissions::{grants_for, refusal},
    },
    error::Error,
};

/// What callers are checked against.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    /// Asked anew at each call.
    pub(super) access: watch::Receiver<Arc<Access>>,
    /// For calls.
    pub(super) places: Places,
    /// How long an answer may wait to be taken.
    pub(super) unread: Duration,
}

/// A call that has been let in.
#[derive(Clone, Debug)]
pub(super) struct Admitted {
    /// Who makes it.
    pub(super) caller: Caller,
    /// Its place among the others.
    pub(super) place: Arc<Place>,
    /// The connection that it came on.
    pub(super) line: Arc<Line>,
}

impl Guard {
    /// Puts a service behind the guard.
    pub(super) fn protect<S>(&self, service: S) -> Guarded<S> {
        Guarded { guard: Arc::new(self.clone()), service }
    }

    /// Lets a call in, or says why not.
    async fn admit(&self, call: Head) -> Result<(Admitted, Busy), Error> {
        let Head { path, bearer, peer } = call;
        let peer = peer.ok_or(Error::Unauthenticated)?;
        let bearer = bearer?;
        let shown = Shown { bearer: bearer.as_deref(), certificate: peer.certificate.as_ref() };
        let access = self.access.borrow().clone();
        let grants = grants_for(&path);
        let caller = access.admit(shown, grants, Timestamp::now()).await?;
        if !caller.holds_any() {
            tracing::info!(principal = %caller.principal, call = path, "no role for the call");
            return Err(refusal(grants));
        }
        let place = self.places.take(&caller.principal)?;
        let (busy, line) = (peer.line.busy(), peer.line);
        Ok((Admitted { caller, place, line }, busy))
    }
}

/// What is looked at before a call is let in.
struct Head {
    path: String,
    bearer: Result<Option<String>, Error>,
    peer: Option<Peer>,
}

impl Head {
    fn of(request: &http::Request<Body>) -> Self {
        Self {
            path: request.uri().path().to_owned(),
            bearer: token(request.headers()).map(|token| token.map(str::to_owned)),
            peer: request.extensions().get::<Peer>().cloned(),
        }
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
pub(super) struct Guarded<S> {
    guard: Arc<Guard>,
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

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let guard = self.guard.clone();
        // The one that has said that it is ready.
        let next = self.service.clone();
        let mut service = mem::replace(&mut self.service, next);
        let head = Head::of(&request);
        Box::pin(async move {
            let (admitted, busy) = match guard.admit(head).await {
                Ok(admitted) => admitted,
                Err(error) => return Ok(Status::from(error).into_http()),
            };
            let (head, body) = request.into_parts();
            let body = match answer::arrived(body).await {
                Ok(body) => body,
                Err(error) => return Ok(Status::from(error).into_http()),
            };
            let mut request = http::Request::from_parts(head, body);
            let (place, line) = (admitted.place.clone(), admitted.line.clone());
            request.extensions_mut().insert(admitted);
            let answer = explain(service.call(request).await?);
            let taken = place.ends_with_its_answer().then(|| Taken::within(guard.unread, line));
            Ok(answer::holding(answer, (place, busy, taken)))
        })
    }
}

/// A request that the transport could not decode, or that says that it is longer than it is, is refused by it in its own
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

/// A call that the guard has let in. One that has not come by it is nobody's.
pub(super) fn admitted<T>(request: &mut Request<T>) -> Result<Admitted, Error> {
    request.extensions_mut().remove::<Admitted>().ok_or(Error::Unauthenticated)
}
