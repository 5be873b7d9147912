//! Requests and answers on their way. A peer that sends slowly, or does not read, must not keep what is held for it for
//! ever.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use tokio::time::timeout;
use tonic::{
    Status,
    body::Body,
    codegen::{Bytes, http},
};

use crate::error::Error;

/// Largest request, in bytes: a context takes 64 KiB in canonical form and more as protobuf.
pub(super) const REQUEST_BYTES: usize = 512 * 1024;

/// What gRPC puts in front of a message.
const PREFIX_BYTES: usize = 5;

/// How long a request may take to arrive in full, once its caller is known.
const ARRIVAL: Duration = Duration::from_secs(10);

/// What is handed to the transport at once. It takes a piece as soon as its peer would take a byte, and keeps it however long
/// the rest is not wanted.
const PIECE: usize = 16 * 1024;

/// A request that has arrived in full.
pub(super) async fn arrived(body: Body) -> Result<Body, Error> {
    let whole = Limited::new(body, REQUEST_BYTES + PREFIX_BYTES).collect();
    let why = match timeout(ARRIVAL, whole).await {
        Ok(Ok(whole)) => return Ok(Body::new(Full::new(whole.to_bytes()))),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            format!("is longer than {REQUEST_BYTES} bytes")
        }
        Ok(Err(_)) => "did not arrive in full".to_owned(),
        Err(_) => format!("did not arrive in full within {} s", ARRIVAL.as_secs()),
    };
    Err(Error::invalid("request", why))
}

/// An answer that lets go of what is held for it once it has been taken.
pub(super) fn holding<H: Send + Unpin + 'static>(
    answer: http::Response<Body>,
    held: H,
) -> http::Response<Body> {
    answer.map(|body| Body::new(Answer { body, rest: Bytes::new(), _held: held }))
}

/// An answer, in pieces.
struct Answer<H> {
    body: Body,
    rest: Bytes,
    _held: H,
}

impl<H: Unpin> http_body::Body for Answer<H> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                ended => return Poll::Ready(ended),
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let most = PIECE.min(self.rest.len());
        Poll::Ready(Some(Ok(http_body::Frame::data(self.rest.split_to(most)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn an_answer_comes_in_pieces_and_is_held_up_to_the_last() {
        let text: Vec<u8> = (0..3 * PIECE + 1).map(|at| (at % 251) as u8).collect();
        let held = Arc::new(());
        let body = Body::new(Full::new(Bytes::from(text.clone())));
        let answer = holding(http::Response::new(body), held.clone());
        let mut body = answer.into_body();
        let mut read = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.expect("no error").into_data().expect("data");
            assert!(data.len() <= PIECE);
            read.extend_from_slice(&data);
            assert_eq!(Arc::strong_count(&held), 2);
        }
        assert_eq!(read, text);
        drop(body);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
