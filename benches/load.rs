//! What a call costs through the authority, beside the same change written straight into the same database. `make bench`
//! runs it; take the ratios: figures of one run belong together, and only those.
//!
//! The server is a process of its own, PostgreSQL too; the callers are in this one and share its cores with them.

use approval_authority::proto::Outcome;
use serde_json::json;
use tonic::transport::Endpoint;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

mod bench;

use bench::{
    Bench, Caller, all_wanted, calls,
    measure::{Figures, head, measure},
    place::{Operation, Place},
    straight::Straight,
    wanted,
};

const CALLERS: [usize; 4] = [1, 16, 64, 256];

/// Where there is one figure only.
const MANY: usize = 64;

/// Connections of callers that write straight into the database: the best of these is taken.
const CONNECTIONS: [usize; 3] = [8, 16, 32];

/// Callers on one connection to the server: fewer than may ask for health there at once (16), since the place of a call is free
/// again only a little after its answer has come.
const EACH: usize = 12;

/// Operations in one transaction, where they are written straight and batched.
const BATCH: usize = 128;

/// Calls there can be of what has to be prepared.
const PREPARED: usize = 24_000;

#[tokio::main]
async fn main() {
    let mut bench = Bench::start().await;
    bench.connect().await.batch_execute(include_str!("bench/straight.sql")).await.expect("written");
    let mut table = Table::default();
    let connections = best_connections(&bench).await;
    println!("{connections} connections serve `sql` best\n\n{}", head());
    for callers in CALLERS {
        if wanted("rpc") {
            table.add(rpc(&bench, callers).await);
        }
        if wanted("create") {
            table.add(create(&bench, "create", callers, 1).await);
            table.add(sql_create(&bench, "sql create", callers, connections).await);
        }
        if wanted("join") {
            table.add(join(&bench, callers).await);
            table.add(sql_join(&bench, callers, connections).await);
        }
        if wanted("cycle") {
            table.add(cycle(&bench, "cycle", callers, 1).await);
            table.add(sql_cycle(&bench, callers, connections).await);
        }
        if wanted("consume") {
            table.add(consume(&bench, callers).await);
            table.add(sql_consume(&bench, callers, connections).await);
        }
    }
    if !all_wanted() {
        return;
    }
    let kib = bench.server_kib();
    table.add(sql_batched(&bench).await);
    table.add(create(&bench, "create, 64 namespaces", MANY, 64).await);
    table.add(cycle(&bench, "cycle, 64 namespaces", MANY, 64).await);
    for servers in [2, 3] {
        bench.add_server().await;
        table.add(create(&bench, &format!("create, {servers} servers"), MANY, 1).await);
        table.add(cycle(&bench, &format!("cycle, {servers} servers"), MANY, 1).await);
    }
    table.finish(kib, pgbench(&bench, connections).await);
}

/// Callers spread over the servers, sixteen on a connection.
async fn callers(bench: &Bench, subject: &str, count: usize) -> Vec<Caller> {
    let mut connections = Vec::new();
    for number in 0..count.div_ceil(EACH).max(bench.servers.len()) {
        let server = &bench.servers[number % bench.servers.len()];
        connections.push(bench.caller_of(server, subject).await);
    }
    (0..count).map(|number| connections[number % connections.len()].clone()).collect()
}

/// An empty call: what the transport can do.
async fn rpc(bench: &Bench, count: usize) -> Figures {
    let mut connections = Vec::new();
    for _ in 0..count.div_ceil(EACH) {
        let address = format!("http://{}", bench.servers[0].address);
        let endpoint = Endpoint::from_shared(address).expect("well-formed");
        connections.push(HealthClient::new(endpoint.connect().await.expect("a server")));
    }
    let callers =
        (0..count).map(|number| connections[number % connections.len()].clone()).collect();
    measure("rpc", callers, usize::MAX, |mut caller, _| async move {
        caller.check(HealthCheckRequest::default()).await.expect("healthy");
    })
    .await
}

async fn create(bench: &Bench, what: &str, count: usize, namespaces: usize) -> Figures {
    let place = Place::new(bench, what, count, namespaces).await;
    calls::create(what, place, callers(bench, "backend", count).await).await
}

async fn sql_create(bench: &Bench, what: &str, count: usize, connections: usize) -> Figures {
    let place = Place::new(bench, what, count, 1).await;
    let callers = Straight::callers(bench, place.namespace(), count, connections).await;
    measure(what, callers, usize::MAX, move |caller, number| {
        let operation = place.operation(number);
        async move {
            let asked = caller.ask(&[operation.workspace], &[operation.context]).await;
            assert_eq!(asked.len(), 1);
        }
    })
    .await
}

/// The same, batched: what the database can do with the changes of `create` at best.
async fn sql_batched(bench: &Bench) -> Figures {
    let place = Place::new(bench, "sql batched", 2, 1).await;
    let callers = Straight::callers(bench, place.namespace(), 2, 2).await;
    let mut batched = measure("sql create, batched", callers, usize::MAX, move |caller, number| {
        let operations =
            (number * BATCH..(number + 1) * BATCH).map(|number| place.operation(number));
        let (workspaces, contexts): (Vec<String>, Vec<String>) =
            operations.map(|operation| (operation.workspace, operation.context)).unzip();
        async move { assert_eq!(caller.ask(&workspaces, &contexts).await.len(), BATCH) }
    })
    .await;
    batched.per_second *= BATCH as f64;
    batched
}

async fn join(bench: &Bench, count: usize) -> Figures {
    let place = Place::new(bench, "join", count, 1).await;
    calls::join("join", place, callers(bench, "backend", count).await).await
}

async fn sql_join(bench: &Bench, count: usize, connections: usize) -> Figures {
    let place = Place::new(bench, "sql join", count, 1).await;
    let callers = Straight::callers(bench, place.namespace(), count, connections).await;
    for number in 0..MANY {
        let operation = place.operation(number);
        callers[0].ask(&[operation.workspace], &[operation.context]).await;
    }
    measure("sql join", callers, usize::MAX, move |caller, number| {
        let operation = place.operation(number % MANY);
        async move { caller.join(&operation.workspace, &operation.context).await }
    })
    .await
}

/// A new operation, approved and let through.
async fn cycle(bench: &Bench, what: &str, count: usize, namespaces: usize) -> Figures {
    let place = Place::new(bench, what, count, namespaces).await;
    let backends = callers(bench, "backend", count).await;
    let approvers = callers(bench, "alice", count).await;
    let callers = backends.into_iter().zip(approvers).collect();
    measure(what, callers, usize::MAX, move |(backend, alice), number| {
        let operation = place.operation(number);
        async move {
            alice.approve(&backend.ask_about(&operation).await).await;
            assert_eq!(backend.ask_about(&operation).await.outcome(), Outcome::Approved);
        }
    })
    .await
}

async fn sql_cycle(bench: &Bench, count: usize, connections: usize) -> Figures {
    let place = Place::new(bench, "sql cycle", count, 1).await;
    let callers = Straight::callers(bench, place.namespace(), count, connections).await;
    measure("sql cycle", callers, usize::MAX, move |caller, number| {
        let Operation { workspace, context, .. } = place.operation(number);
        async move {
            let asked =
                caller.ask(std::slice::from_ref(&workspace), std::slice::from_ref(&context)).await;
            caller.approve(asked[0]).await;
            caller.consume(&workspace, &context).await;
        }
    })
    .await
}

async fn consume(bench: &Bench, count: usize) -> Figures {
    let place = Place::new(bench, "consume", count, 1).await;
    let callers = callers(bench, "backend", count).await;
    calls::consume(bench, "consume", place, callers, prepared(count)).await
}

async fn sql_consume(bench: &Bench, count: usize, connections: usize) -> Figures {
    let place = Place::new(bench, "sql consume", count, 1).await;
    let callers = Straight::callers(bench, place.namespace(), count, connections).await;
    let prepared = prepared(count);
    for first in (0..prepared).step_by(BATCH) {
        let operations = (first..first + BATCH).map(|number| place.operation(number));
        let (workspaces, contexts): (Vec<String>, Vec<String>) =
            operations.map(|operation| (operation.workspace, operation.context)).unzip();
        callers[0].ask(&workspaces, &contexts).await;
    }
    let approve =
        "SELECT count(straight.approve(a.namespace, a.id)) FROM approval_authority.approvals AS a
        WHERE a.namespace = $1";
    bench.connect().await.execute(approve, &[&place.namespace()]).await.expect("approved");
    measure("sql consume", callers, prepared, move |caller, number| {
        let operation = place.operation(number);
        async move { caller.consume(&operation.workspace, &operation.context).await }
    })
    .await
}

/// How many a measurement will not use up: one caller makes fewer calls.
fn prepared(callers: usize) -> usize {
    if callers == 1 { PREPARED / 4 } else { PREPARED }
}

async fn best_connections(bench: &Bench) -> usize {
    let mut best = (0.0, CONNECTIONS[0]);
    for connections in CONNECTIONS {
        let what = format!("sql on {connections}");
        let figures = sql_create(bench, &what, MANY, connections).await;
        if figures.per_second > best.0 {
            best = (figures.per_second, connections);
        }
    }
    best.1
}

/// `sql create` by another client, as a check on ours.
async fn pgbench(bench: &Bench, connections: usize) -> f64 {
    let place = Place::new(bench, "pgbench", connections, 1).await;
    let namespace = place.namespace();
    let script = format!(
        "\\set n random(1, 2000000000)\n\\set w random(0, 3999)\n\
         SELECT straight.ask('{namespace}', ARRAY['w' || :w], ARRAY['{{\"n\":' || :n || '}}']);\n"
    );
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), script).expect("written");
    let clients = connections.to_string();
    let arguments = ["-n", "-M", "prepared", "-j", "2", "-T", "3", "-c", &clients, "-f"];
    let mut pgbench = bench.program("pgbench");
    let ran =
        pgbench.args(arguments).arg(file.path()).arg(&bench.url).output().await.expect("pgbench");
    let said = String::from_utf8_lossy(&ran.stdout);
    let tps = said.lines().find_map(|line| line.strip_prefix("tps = "));
    let tps = tps.and_then(|rest| rest.split(' ').next()).and_then(|tps| tps.parse().ok());
    tps.unwrap_or_else(|| panic!("{said}{}", String::from_utf8_lossy(&ran.stderr)))
}

/// What has been measured.
#[derive(Default)]
struct Table {
    rows: Vec<Figures>,
}

impl Table {
    fn add(&mut self, figures: Figures) {
        println!("{}", figures.line());
        self.rows.push(figures);
    }

    fn of(&self, what: &str, callers: usize) -> &Figures {
        let found = self.rows.iter().find(|row| row.what == what && row.callers == callers);
        found.expect("measured")
    }

    /// Per second, at the best number of callers.
    fn best(&self, what: &str) -> f64 {
        let rates = self.rows.iter().filter(|row| row.what == what).map(|row| row.per_second);
        rates.fold(0.0, f64::max)
    }

    /// Prints the ratios that say how good it is, and all of it for programs.
    fn finish(&self, kib: i64, pgbench: f64) {
        let seconds = |what, callers| self.of(what, callers).p50.as_secs_f64();
        let bound = 1.0 / (1.0 / self.best("rpc") + 1.0 / self.best("sql create, batched"));
        let many = self.of("create", MANY);
        let ratios = [
            ("create / sql", self.best("create") / self.best("sql create")),
            ("cycle / sql", self.best("cycle") / self.best("sql cycle")),
            ("consume / sql", self.best("consume") / self.best("sql consume")),
            ("join / rpc", self.best("join") / self.best("rpc")),
            ("create / bound of rpc and batched sql", self.best("create") / bound),
            (
                "p50 of create / (rpc + sql), 1 caller",
                seconds("create", 1) / (seconds("rpc", 1) + seconds("sql create", 1)),
            ),
            ("p99 / p50 of create, 64 callers", many.p99.as_secs_f64() / many.p50.as_secs_f64()),
            ("pgbench / sql create", pgbench / self.best("sql create")),
            ("server at 256 callers, MiB", kib as f64 / 1024.0),
        ];
        println!();
        for (name, ratio) in ratios {
            println!("{name:<40} {ratio:>6.2}");
        }
        let rows: Vec<_> = self.rows.iter().map(Figures::json).collect();
        let ratios: serde_json::Map<_, _> =
            ratios.into_iter().map(|(name, ratio)| (name.to_owned(), json!(ratio))).collect();
        println!("\n{}", json!({ "rows": rows, "ratios": ratios }));
    }
}
