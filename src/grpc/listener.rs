//! Connections as they come in: accepted and, where TLS is on, shaken hands with.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::stream::{Stream, unfold};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;
use tonic::transport::server::Connected;

use crate::{auth::mtls::Certificate, tls::H2};

/// How long a handshake may take. Who connects and says nothing costs a socket for that long, and no more.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

/// Handshakes at once. Those who come on top of them wait in the kernel's queue.
const HANDSHAKES: usize = 1024;

/// What the server shows in a handshake, now. A change is for the connections that come after it.
pub type Tls = watch::Receiver<Arc<ServerConfig>>;

/// The connections of a listener, for as long as it is asked for more. When this is dropped the listener is closed
/// and handshakes end, while connections go on.
pub(super) fn connections(
    listener: TcpListener,
    tls: Option<Tls>,
) -> impl Stream<Item = io::Result<Connection>> {
    let incoming = Incoming { listener, tls, handshakes: JoinSet::new() };
    unfold(incoming, async |mut incoming| Some((incoming.next().await, incoming)))
}

struct Incoming {
    listener: TcpListener,
    tls: Option<Tls>,
    /// Each in a task of its own: a slow one holds up nobody, and all processors take part.
    handshakes: JoinSet<Option<Connection>>,
}

impl Incoming {
    async fn next(&mut self) -> io::Result<Connection> {
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if self.handshakes.len() < HANDSHAKES => {
                    let (socket, _) = accepted?;
                    // The transport sets this on sockets that it accepts itself, and not on those it is handed.
                    socket.set_nodelay(true)?;
                    let Some(tls) = &self.tls else { return Ok(Connection::plain(socket)) };
                    let config = tls.borrow().clone();
                    self.handshakes.spawn(handshake(socket, config));
                }
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = done {
                        return Ok(connection);
                    }
                }
            }
        }
    }
}

/// None for who does not get through it: such peers are many, and none of them is an error of ours.
async fn handshake(socket: TcpStream, config: Arc<ServerConfig>) -> Option<Connection> {
    let peer = socket.peer_addr().ok()?;
    match timeout(HANDSHAKE_PATIENCE, TlsAcceptor::from(config).accept(socket)).await {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(H2) => {
            Some(Connection::secured(stream))
        }
        Ok(Ok(_)) => {
            tracing::debug!(%peer, "refused: the peer does not ask for HTTP/2");
            None
        }
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "refused: no TLS handshake");
            None
        }
        Err(_) => {
            tracing::debug!(%peer, "refused: the TLS handshake takes too long");
            None
        }
    }
}

/// Who is at the other end of a connection. The transport puts it into each request's extensions.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    /// Its certificate, if it has shown one, which has been verified then.
    pub(super) certificate: Option<Arc<Certificate>>,
}

/// A connection with a caller.
pub(super) struct Connection {
    stream: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    peer: Peer,
}

impl Connection {
    fn plain(socket: TcpStream) -> Self {
        Self { stream: Either::Left(socket), peer: Peer::default() }
    }

    fn secured(stream: TlsStream<TcpStream>) -> Self {
        let chain = stream.get_ref().1.peer_certificates();
        let certificate = chain.and_then(|chain| Certificate::read(chain.first()?)).map(Arc::new);
        Self { stream: Either::Right(Box::new(stream)), peer: Peer { certificate } }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
