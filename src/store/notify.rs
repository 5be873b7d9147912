//! Wake-ups: a hint that a namespace's log has grown, here or on another replica. Nothing depends on one
//! arriving; the table is the truth.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::StreamExt;
use tokio::sync::{Notify, broadcast};
use tokio_postgres::AsyncMessage;

use super::{Failure, Store};
use crate::names::Namespace;

const CHANNEL: &str = "approval_authority_log";

/// After a notification has been sent, the next waits this long, so that a busy replica sends a few hundred a
/// second and not one for each commit: they share a lock across the whole cluster.
const COALESCE: Duration = Duration::from_millis(5);

/// How often the listening connection is asked whether it still lives.
const PING: Duration = Duration::from_secs(10);

/// Hints kept for a receiver that is busy; one that has fallen behind polls instead.
const BACKLOG: usize = 1024;

const NOTIFY: &str = "-- notify(): wakes other replicas; one message for each namespace
SELECT pg_notify($1, n.namespace) FROM unnest($2::text[]) AS n (namespace)";

/// Hands out wake-ups to this replica's tailers, and gathers those to send to other replicas.
#[derive(Clone)]
pub struct Announcer {
    local: broadcast::Sender<Namespace>,
    outgoing: Arc<Mutex<BTreeSet<Namespace>>>,
    some_to_send: Arc<Notify>,
}

impl Default for Announcer {
    fn default() -> Self {
        Self {
            local: broadcast::channel(BACKLOG).0,
            outgoing: Arc::default(),
            some_to_send: Arc::default(),
        }
    }
}

impl Announcer {
    /// A transaction that appended to this log has committed.
    pub fn announce(&self, namespace: &Namespace) {
        // Nobody may be listening; then there is nobody to wake.
        let _ = self.local.send(namespace.clone());
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner).insert(namespace.clone());
        self.some_to_send.notify_one();
    }

    /// Wake-ups of every namespace, from here and from other replicas.
    pub fn listen(&self) -> broadcast::Receiver<Namespace> {
        self.local.subscribe()
    }

    fn take(&self) -> Vec<Namespace> {
        let mut outgoing = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *outgoing).into_iter().collect()
    }
}

impl Store {
    /// Sends this replica's wake-ups to the others, for ever.
    pub async fn send_wake_ups(&self) {
        loop {
            self.announcer.some_to_send.notified().await;
            let namespaces = self.announcer.take();
            if let Err(failure) = self.notify(&namespaces).await {
                tracing::debug!(%failure, "a notification was not sent; the others poll");
            }
            tokio::time::sleep(COALESCE).await;
        }
    }

    /// Receives the wake-ups of other replicas until the connection fails. `connected` is called once it
    /// listens: what came before may have been missed.
    pub async fn receive_wake_ups(&self, connected: impl FnOnce()) -> Failure {
        match self.listen(connected).await {
            Ok(()) => Failure::Unavailable("the listening connection was closed".to_owned()),
            Err(failure) => failure,
        }
    }

    async fn notify(&self, namespaces: &[Namespace]) -> Result<(), Failure> {
        let names: Vec<&str> = namespaces.iter().map(Namespace::as_str).collect();
        let lease = self.connection().await?;
        lease.rows(NOTIFY, &[&CHANNEL, &names]).await?;
        Ok(())
    }

    async fn listen(&self, connected: impl FnOnce()) -> Result<(), Failure> {
        let (client, mut messages) = self.listener.connect_unchecked().await?;
        let announcer = self.announcer.clone();
        let mut reader = tokio::spawn(async move {
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notification(notification) = message
                    && let Ok(namespace) = Namespace::parse(notification.payload())
                {
                    let _ = announcer.local.send(namespace);
                }
            }
        });
        in_time(client.batch_execute(&format!("LISTEN {CHANNEL}"))).await?;
        connected();
        loop {
            tokio::select! {
                _ = &mut reader => return Ok(()),
                () = tokio::time::sleep(PING) => {}
            }
            if let Err(failure) = in_time(client.batch_execute("-- ping()\nSELECT 1")).await {
                reader.abort();
                return Err(failure);
            }
        }
    }
}

/// A listening connection that does not answer is no listening connection.
async fn in_time(
    statement: impl Future<Output = Result<(), tokio_postgres::Error>>,
) -> Result<(), Failure> {
    match tokio::time::timeout(PING, statement).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Failure::Unavailable("the listening connection is silent".to_owned())),
    }
}
