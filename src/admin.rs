//! The second listener, for those who run the service: whether it lives, whether it is ready, and what it counts. Nobody says
//! who they are here, and nothing is shown that would be worth it: no secret, and no name that a caller chose.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::metrics::{Page, Read};

/// Connections at once. Of more the oldest is closed: those who ask take milliseconds.
const CONNECTIONS: usize = 64;

/// How long a connection may take, for one question and its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Of that, how long the question may take to arrive; and its size.
const HEADER_PATIENCE: Duration = Duration::from_secs(5);
const HEADER_BYTES: usize = 8 * 1024;

/// Until the next connection is asked for after one could not be had.
const PAUSE: Duration = Duration::from_millis(100);

/// What those who run the service can see. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admin {
    /// What is counted.
    pub page: Page,
    /// Whether callers should come.
    pub readiness: Readiness,
}

impl Default for Admin {
    fn default() -> Self {
        let (page, readiness) = (Page::default(), Readiness::default());
        let help = "1 from when the schema has been seen until the server drains";
        let phase = readiness.clone();
        let read = move || [usize::from(phase.phase() == Phase::Serving)];
        page.add(vec![Box::new(Read::new([("approval_authority_ready", help)], read))]);
        Self { page, readiness }
    }
}

/// How far a server has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// The database has not been seen yet.
    #[default]
    Starting,
    /// The schema has been seen once, and fits. A database that is gone since does not change that: every other server has
    /// lost it, too, and a load balancer without any of them would keep callers away when it is back.
    Serving,
    /// It turns new calls away.
    Draining,
}

/// How far a server has come, for all who want to know. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness(watch::Sender<Phase>);

impl Readiness {
    /// Says how far it has come.
    pub fn reach(&self, phase: Phase) {
        self.0.send_replace(phase);
    }

    /// How far it has come.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }
}

impl Admin {
    /// Answers until it is dropped.
    pub async fn serve(self, listener: TcpListener) {
        let app = Router::new()
            .route("/metrics", get(metrics))
            .route("/livez", get(async || "alive\n"))
            .route("/readyz", get(readyz))
            .with_state(self);
        let (mut connections, mut oldest_first) = (JoinSet::new(), VecDeque::new());
        loop {
            let socket = match listener.accept().await {
                Ok((socket, _)) => socket,
                Err(error) => {
                    tracing::warn!(%error, "the admin listener cannot accept connections");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            oldest_first.retain(|open: &AbortHandle| !open.is_finished());
            if oldest_first.len() >= CONNECTIONS
                && let Some(oldest) = oldest_first.pop_front()
            {
                oldest.abort();
            }
            oldest_first.push_back(connections.spawn(answer(socket, app.clone())));
        }
    }
}

async fn answer(socket: TcpStream, app: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_PATIENCE)
        .max_buf_size(HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(app));
    // Who asks and goes, or never asks, is no fault of ours.
    let _ = timeout(PATIENCE, connection).await;
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    match admin.readiness.phase() {
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Phase::Serving => (StatusCode::OK, "ready\n"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

async fn metrics(State(admin): State<Admin>) -> Result<Response, Infallible> {
    Ok(match admin.page.text() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
            .into_response(),
        Err(why) => {
            tracing::error!(%why, "the metrics cannot be shown");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    })
}
