//! Connections as they come in: accepted, greeted and handed on. And as they end: with their peer, or because they have
//! to.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::stream::{Stream, unfold};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{either::Either, sync::WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::{
    connections::{Connections, Line, Seat},
    limits::Limits,
};
use crate::{auth::mtls::Certificate, tls::H2};

/// How long a greeting may take: the TLS handshake, if there is one, and the first words of HTTP/2. Who connects and says
/// nothing costs a socket for that long, and no more.
const GREETING_PATIENCE: Duration = Duration::from_secs(10);

/// What a client says first in HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Until the next connection is asked for after one could not be had, as when there are no more file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// What the server shows in a handshake, now. A change is for the connections that come after it.
pub type Tls = watch::Receiver<Arc<ServerConfig>>;

/// The connections of a listener, for as long as it is asked for more. When this is dropped the listener is closed
/// and greetings end, while connections go on.
pub(super) fn connections(
    listener: TcpListener,
    tls: Option<Tls>,
    limits: Limits,
) -> impl Stream<Item = io::Result<Connection>> {
    let connections = Connections::new(limits.connections);
    let greetings = JoinSet::new();
    let incoming = Incoming { listener, tls, connections, unread: limits.unread, greetings };
    unfold(incoming, async |mut incoming| Some((Ok(incoming.next().await), incoming)))
}

struct Incoming {
    listener: TcpListener,
    tls: Option<Tls>,
    connections: Arc<Connections>,
    /// How long a peer may take nothing of what is sent to it. It may be there, and answer on the level of TCP: that alone
    /// would keep the connection for ever.
    unread: Duration,
    /// Each in a task of its own: a slow one holds up nobody, and all processors take part. They have seats, and so are as many
    /// as there are of those.
    greetings: JoinSet<Option<Connection>>,
}

impl Incoming {
    async fn next(&mut self) -> Connection {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, _)) => self.receive(socket),
                    // Of that one connection, which its peer has given up.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept connections; making room");
                        self.connections.make_room();
                        sleep(PAUSE).await;
                    }
                },
                Some(greeted) = self.greetings.join_next() => {
                    if let Ok(Some(connection)) = greeted {
                        return connection;
                    }
                }
            }
        }
    }

    /// Who finds no seat is closed at once, rather than kept in the kernel's queue: it can go elsewhere.
    fn receive(&mut self, socket: TcpStream) {
        let Some(seat) = self.connections.seat() else {
            tracing::warn!(
                "refused a connection: there are too many, and a call in progress on each"
            );
            return;
        };
        let tls = self.tls.as_ref().map(|tls| tls.borrow().clone());
        let unread = self.unread;
        self.greetings.spawn(async move {
            let closing = seat.line().closing().clone();
            let greeted = timeout(GREETING_PATIENCE, greet(socket, tls, unread, seat));
            match closing.run_until_cancelled(greeted).await {
                Some(Ok(Ok(connection))) => Some(connection),
                // Such peers are many, and none of them is an error of ours.
                Some(Ok(Err(why))) => {
                    tracing::debug!(%why, "a connection did not come about");
                    None
                }
                Some(Err(_)) => {
                    tracing::debug!("a connection did not come about in time");
                    None
                }
                None => None,
            }
        });
    }
}

async fn greet(
    socket: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    unread: Duration,
    seat: Seat,
) -> io::Result<Connection> {
    // The transport sets this on sockets that it accepts itself, and not on those it is handed.
    socket.set_nodelay(true)?;
    let (mut stream, certificate) = match tls {
        None => (Either::Left(socket), None),
        Some(config) => {
            let stream = TlsAcceptor::from(config).accept(socket).await?;
            let session = stream.get_ref().1;
            if session.alpn_protocol() != Some(H2) {
                return Err(io::Error::other("the peer does not ask for HTTP/2"));
            }
            let shown = session.peer_certificates().and_then(|chain| chain.first());
            let certificate = shown.and_then(|shown| Certificate::read(shown)).map(Arc::new);
            (Either::Right(Box::new(stream)), certificate)
        }
    };
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface).await?;
    if preface != *PREFACE {
        return Err(io::Error::other("the peer does not speak HTTP/2"));
    }
    let line = seat.line().clone();
    Ok(Connection {
        stream,
        preface: PREFACE,
        closing: Box::pin(line.closing().clone().cancelled_owned()),
        unread,
        stalled: None,
        gathered: false,
        peer: Peer { certificate, line },
        _seat: seat,
    })
}

/// Who is at the other end of a connection. The transport puts it into each request's extensions.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Its certificate, if it has shown one, which has been verified then.
    pub(super) certificate: Option<Arc<Certificate>>,
    /// The connection.
    pub(super) line: Arc<Line>,
}

/// A connection with a caller.
pub(super) struct Connection {
    stream: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    /// What has been read and not been handed on.
    preface: &'static [u8],
    /// Ready when the connection has to be closed.
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    unread: Duration,
    /// Until when the peer has to take something, while it takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Whether other answers have had their turn to go along with what is to be sent.
    gathered: bool,
    peer: Peer,
    _seat: Seat,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl Connection {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.closing.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// Lets whatever else is ready to run go first, once before something is sent: a batch answers many calls of a
    /// connection, and the first of them would otherwise be sent by itself, and so each other.
    fn gather(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.gathered {
            return Poll::Ready(());
        }
        self.gathered = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Something is sent, unless the connection has to be closed or the peer has taken nothing for too long.
    fn send<T>(
        &mut self,
        cx: &mut Context<'_>,
        send: impl FnOnce(
            Pin<&mut Either<TcpStream, Box<TlsStream<TcpStream>>>>,
            &mut Context<'_>,
        ) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.check(cx)?;
        let sent = send(Pin::new(&mut self.stream), cx);
        if sent.is_ready() {
            self.stalled = None;
            return sent;
        }
        let unread = self.unread;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(unread)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        if !self.preface.is_empty() {
            let (now, later) = self.preface.split_at(buf.remaining().min(self.preface.len()));
            buf.put_slice(now);
            self.preface = later;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.gather(cx));
        self.send(cx, |stream, cx| stream.poll_write(cx, buf))
    }

    /// No: h2 then copies messages of up to 1 KiB behind one another, and otherwise sends each from 256 bytes on by itself.
    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.gathered = false;
        self.send(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send(cx, |stream, cx| stream.poll_shutdown(cx))
    }
}
