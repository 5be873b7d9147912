//! The way between a caller and a server: slow, too narrow, or cut.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};
use tokio_util::task::AbortOnDropHandle;

use crate::harness::{TestServer, request};

/// Passes on what comes, in front of a server. When it is dropped, so are the connections through it.
pub struct Relay {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    cuts: watch::Sender<usize>,
    _listening: AbortOnDropHandle<()>,
}

struct Shared {
    server: SocketAddr,
    /// How long each piece takes.
    delay: Duration,
    /// What a connection that begins now takes from the server before it stands still, in bytes.
    room: AtomicUsize,
    connections: AtomicUsize,
}

impl Relay {
    pub async fn new(server: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (room, connections) = (AtomicUsize::new(usize::MAX), AtomicUsize::new(0));
        let shared = Arc::new(Shared { server, delay, room, connections });
        let (cuts, cut) = watch::channel(0);
        let listening = tokio::spawn(listen(listener, shared.clone(), cut));
        Self { address, shared, cuts, _listening: AbortOnDropHandle::new(listening) }
    }

    /// In front of a server where a hundred approvals are pending: it stands still before all of them have come.
    pub async fn of_a_hundred_pending(server: &TestServer) -> Self {
        let backend = server.caller("backend").await;
        for number in 0..100 {
            let mut request = request(&format!("w{number}"), "delete_workspace");
            request.reason = "x".repeat(2_000);
            backend.ask(request).await.expect("held");
        }
        let relay = Self::new(server.address, Duration::ZERO).await;
        relay.narrow_to(50_000);
        relay
    }

    /// From now on connections take no more than so many bytes from the server.
    pub fn narrow_to(&self, bytes: usize) {
        self.shared.room.store(bytes, Ordering::Release);
    }

    /// Ends all connections.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// How many have come.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Acquire)
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>, cut: watch::Receiver<usize>) {
    while let Ok((caller, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::AcqRel);
        let (shared, mut cut) = (shared.clone(), cut.clone());
        cut.mark_unchanged();
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(shared.server).await else { return };
            let (from_caller, to_caller) = caller.into_split();
            let (from_server, to_server) = server.into_split();
            let room = shared.room.load(Ordering::Acquire);
            tokio::select! {
                _ = cut.changed() => {}
                _ = pass(from_caller, to_server, shared.delay, usize::MAX) => {}
                _ = pass(from_server, to_caller, shared.delay, room) => {}
            }
        });
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    delay: Duration,
    mut room: usize,
) -> std::io::Result<()> {
    let mut piece = vec![0; 16 * 1024];
    loop {
        if room == 0 {
            std::future::pending::<()>().await;
        }
        let most = room.min(piece.len());
        let read = from.read(&mut piece[..most]).await?;
        if read == 0 {
            return Ok(());
        }
        sleep(delay).await;
        to.write_all(&piece[..read]).await?;
        room -= read;
    }
}
