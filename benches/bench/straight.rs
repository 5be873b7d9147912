//! The same changes without the authority: a hand-written statement for each call, straight into the same database.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use super::Bench;

/// Connections that callers share, each used by one at a time.
#[derive(Clone)]
pub struct Straight {
    namespace: String,
    connection: Arc<Mutex<Connection>>,
}

struct Connection {
    client: Client,
    ask: Statement,
    join: Statement,
    approve: Statement,
    consume: Statement,
}

impl Connection {
    async fn new(bench: &Bench) -> Self {
        let client = bench.connect().await;
        let prepare = async |call| client.prepare(call).await.expect("prepared");
        let ask = prepare("SELECT straight.ask($1, $2, $3)").await;
        let join = prepare("SELECT straight.join_($1, $2, $3)").await;
        let approve = prepare("SELECT straight.approve($1, $2)").await;
        let consume = prepare("SELECT straight.consume($1, $2, $3)").await;
        Self { client, ask, join, approve, consume }
    }
}

impl Straight {
    /// So many callers on so many connections.
    pub async fn callers(
        bench: &Bench,
        namespace: &str,
        callers: usize,
        connections: usize,
    ) -> Vec<Self> {
        let mut open = Vec::new();
        for _ in 0..connections.min(callers) {
            open.push(Arc::new(Mutex::new(Connection::new(bench).await)));
        }
        let namespace = namespace.to_owned();
        let caller = |number: usize| Self {
            namespace: namespace.clone(),
            connection: open[number % open.len()].clone(),
        };
        (0..callers).map(caller).collect()
    }

    /// Asks about each of some workspaces, in one transaction.
    pub async fn ask(&self, workspaces: &[String], contexts: &[String]) -> Vec<Uuid> {
        let on = self.connection.lock().await;
        let asked = on.client.query(&on.ask, &[&self.namespace, &workspaces, &contexts]).await;
        asked.expect("asked").iter().map(|row| row.get(0)).collect()
    }

    /// Looks for what is open.
    pub async fn join(&self, workspace: &str, context: &str) {
        let on = self.connection.lock().await;
        let open: Option<Uuid> = on
            .client
            .query_one(&on.join, &[&self.namespace, &workspace, &context])
            .await
            .expect("looked")
            .get(0);
        open.expect("open");
    }

    pub async fn approve(&self, approval: Uuid) {
        let on = self.connection.lock().await;
        let approved = on.client.query_one(&on.approve, &[&self.namespace, &approval]).await;
        assert!(approved.expect("an answer").get::<_, bool>(0), "approved");
    }

    pub async fn consume(&self, workspace: &str, context: &str) {
        let on = self.connection.lock().await;
        let consumed =
            on.client.query_one(&on.consume, &[&self.namespace, &workspace, &context]).await;
        assert!(consumed.expect("an answer").get::<_, bool>(0), "consumed");
    }
}
