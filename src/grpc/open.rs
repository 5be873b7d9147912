//! What is open to everybody: health and reflection. Nobody says who they are here, so what is bounded is a connection.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use tonic::{
    Status,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
};

use super::{answer, connections::OPEN_CALLS, listener::Peer};
use crate::error::Error;

/// Largest request, in bytes: it is the name of something.
pub(super) const REQUEST_BYTES: usize = 4 * 1024;

/// A service that anybody may call, a few times at once.
#[derive(Clone, Debug)]
pub(super) struct OpenToAll<S> {
    service: S,
    /// Of what one connection may have in calls that are open to everybody.
    share: usize,
}

impl<S> OpenToAll<S> {
    /// As if there were room for so many of its calls on a connection, and no others.
    pub(super) fn one_of(calls: usize, service: S) -> Self {
        Self { service, share: OPEN_CALLS / calls }
    }
}

impl<S> Service<http::Request<Body>> for OpenToAll<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>();
        match peer.and_then(|peer| peer.line.open_call(self.share)) {
            Some(call) => {
                let answer = self.service.call(request);
                Box::pin(async move { answer.await.map(|answer| answer::holding(answer, call)) })
            }
            None => Box::pin(async { Ok(Status::from(Error::TooManyCalls).into_http()) }),
        }
    }
}

impl<S: NamedService> NamedService for OpenToAll<S> {
    const NAME: &'static str = S::NAME;
}
