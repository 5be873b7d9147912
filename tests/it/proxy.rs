//! A proxy between a server and PostgreSQL that knows a COMMIT when it sees one, and what can go wrong around it.

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_postgres::{Config, config::Host};

/// Where the length of a message stands: the first message of a session has no type in front of it (PostgreSQL
/// documentation, "Message Formats").
const STARTUP_HEADER: usize = 4;
const HEADER: usize = 5;

/// The types of the messages that matter here.
const QUERY: u8 = b'Q';
const UNLISTEN: &[u8] = b"Q\0\0\0\x0fUNLISTEN *\0";
const COMMAND_COMPLETE: u8 = b'C';

/// What becomes of a COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives, and so does its answer.
    Passed,
    /// It arrives; its answer is lost, and the connection with it.
    AnswerLost,
    /// It arrives; its answer does not come, for as long as the server waits.
    AnswerHeld,
    /// It is lost, and the connection with it: PostgreSQL rolls back.
    Lost,
}

/// A proxy in front of a database. When it is dropped, so are the connections through it.
pub struct Proxy {
    /// The same database by way of the proxy.
    pub url: String,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

struct Shared {
    socket: PathBuf,
    fates: Mutex<Box<dyn FnMut() -> Fate + Send>>,
    struck: watch::Sender<usize>,
    swallows: AtomicBool,
    unlistens: AtomicBool,
}

impl Proxy {
    /// A proxy that passes everything on.
    pub async fn new(url: &str) -> Self {
        let config: Config = url.parse().expect("a URL");
        let [Host::Unix(folder)] = config.get_hosts() else { panic!("one socket: {url}") };
        let (user, name) = (config.get_user(), config.get_dbname());
        let shared = Arc::new(Shared {
            socket: folder.join(".s.PGSQL.5432"),
            fates: Mutex::new(Box::new(|| Fate::Passed)),
            struck: watch::Sender::new(0),
            swallows: AtomicBool::new(false),
            unlistens: AtomicBool::new(false),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        Self {
            url: format!(
                "host=127.0.0.1 port={port} user={} dbname={}",
                user.expect("a user"),
                name.expect("a database")
            ),
            listening: tokio::spawn(listen(listener, shared.clone())),
            shared,
        }
    }

    /// What becomes of the next COMMITs, in turn; all that follow are passed.
    pub fn next(&self, fates: &[Fate]) {
        let mut fates: VecDeque<Fate> = fates.iter().copied().collect();
        self.each(move || fates.pop_front().unwrap_or(Fate::Passed));
    }

    /// Asked for each COMMIT from now on what becomes of it.
    pub fn each(&self, fate: impl FnMut() -> Fate + Send + 'static) {
        *self.shared.fates.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(fate);
    }

    /// From now on it accepts everything, in both directions, and passes nothing on.
    pub fn swallow(&self) {
        self.shared.swallows.store(true, Ordering::Relaxed);
    }

    /// From now on whoever says LISTEN is answered, and does not listen.
    pub fn unlisten(&self) {
        self.shared.unlistens.store(true, Ordering::Relaxed);
    }

    /// How many COMMITs have not been passed. One whose answer is lost or held counts once it is committed.
    pub fn struck(&self) -> usize {
        *self.shared.struck.borrow()
    }

    /// Returns once that many have not been passed.
    pub async fn until_struck(&self, times: usize) {
        let mut struck = self.shared.struck.subscribe();
        struck.wait_for(|struck| *struck >= times).await.expect("the sender is ours");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.expect("a connection");
                connections.spawn(carry(client, shared.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries one session until either end, or a fate, ends it; then both ends see it closed.
async fn carry(client: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = UnixStream::connect(&shared.socket).await?.into_split();
    let fate = Mutex::new(Fate::Passed);
    tokio::select! {
        ended = there(BufReader::new(from_client), BufWriter::new(to_server), &fate, &shared) => ended,
        ended = back(BufReader::new(from_server), BufWriter::new(to_client), &fate, &shared) => ended,
    }
}

async fn there(
    mut from: BufReader<impl AsyncRead + Unpin>,
    mut to: impl AsyncWrite + Unpin,
    fate: &Mutex<Fate>,
    shared: &Shared,
) -> io::Result<()> {
    // The service speaks without TLS here, so a session begins with its startup message.
    let mut message = read(&mut from, STARTUP_HEADER).await?;
    loop {
        if message[0] == QUERY && message[HEADER..] == *b"COMMIT\0" {
            let chosen = shared.fates.lock().unwrap_or_else(PoisonError::into_inner)();
            *fate.lock().unwrap_or_else(PoisonError::into_inner) = chosen;
            if chosen == Fate::Lost {
                shared.struck.send_modify(|struck| *struck += 1);
                return Ok(());
            }
        }
        if message[0] == QUERY
            && message[HEADER..].starts_with(b"LISTEN ")
            && shared.unlistens.load(Ordering::Relaxed)
        {
            message = UNLISTEN.to_vec();
        }
        if !shared.swallows.load(Ordering::Relaxed) {
            to.write_all(&message).await?;
        }
        if from.buffer().is_empty() {
            to.flush().await?;
        }
        message = read(&mut from, HEADER).await?;
    }
}

async fn back(
    mut from: BufReader<impl AsyncRead + Unpin>,
    mut to: impl AsyncWrite + Unpin,
    fate: &Mutex<Fate>,
    shared: &Shared,
) -> io::Result<()> {
    loop {
        let message = read(&mut from, HEADER).await?;
        let fate = *fate.lock().unwrap_or_else(PoisonError::into_inner);
        if message[0] == COMMAND_COMPLETE && fate != Fate::Passed {
            shared.struck.send_modify(|struck| *struck += 1);
            if fate == Fate::AnswerHeld {
                std::future::pending::<()>().await;
            }
            return Ok(());
        }
        if !shared.swallows.load(Ordering::Relaxed) {
            to.write_all(&message).await?;
        }
        if from.buffer().is_empty() {
            to.flush().await?;
        }
    }
}

/// A message as it came; `header` is how long it is up to the end of its length, which counts itself.
async fn read(from: &mut (impl AsyncBufRead + Unpin), header: usize) -> io::Result<Vec<u8>> {
    let mut message = vec![0; header];
    from.read_exact(&mut message).await?;
    let (_, length) = message.split_last_chunk().expect("four bytes");
    let length = u32::from_be_bytes(*length) as usize;
    message.resize(header - STARTUP_HEADER + length, 0);
    from.read_exact(&mut message[header..]).await?;
    Ok(message)
}
