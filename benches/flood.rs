//! What an honest caller notices of another's flood. `make bench` runs it; figures of one run belong together, and only those: the
//! machine is whatever it is, and the flood is made on the same one.
//!
//! Every call asks for something new, and so is a commit. Who is refused asks again at once, as no client should.

mod bench;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bench::{Bench, Caller, percentile};
use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tonic::Code;

/// Calls of the honest caller's, one at a time.
const CALLS: usize = 1_000;

/// As many calls as are made at once on one of the flood's connections.
const EACH: usize = 64;

/// Where a flood's calls go.
#[derive(Clone, Copy)]
enum Namespaces {
    /// All to the honest caller's.
    Same,
    /// All to another.
    Other,
    /// To as many as there are calls at once.
    Many,
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let bench = Bench::start().await;
        let honest = bench.caller("backend").await;
        // The first calls prepare statements and make the namespace's log.
        calls(&honest, "warm-up").await;
        report("alone", &mut calls(&honest, "alone").await);
        for (name, calls_at_once, namespaces) in [
            ("256 at once in another namespace", 256, Namespaces::Other),
            ("256 at once in the same namespace", 256, Namespaces::Same),
            ("256 at once in 256 namespaces", 256, Namespaces::Many),
            ("2,000 at once in the same namespace", 2_000, Namespaces::Same),
        ] {
            beside(&bench, &honest, name, calls_at_once, namespaces).await;
        }
        report("alone again", &mut calls(&honest, "alone-again").await);
    });
}

async fn calls(honest: &Caller, what: &str) -> Vec<Duration> {
    let mut took = Vec::with_capacity(CALLS);
    for number in 0..CALLS {
        let workspace = format!("{what}-{number}");
        let began = Instant::now();
        honest.require("honest", &workspace).await;
        took.push(began.elapsed());
    }
    took
}

fn report(name: &str, took: &mut [Duration]) {
    println!(
        "honest caller, {name}: p50 {:.1?}, p99 {:.1?}",
        percentile(took, 50),
        percentile(took, 99)
    );
}

async fn beside(
    bench: &Bench,
    honest: &Caller,
    name: &str,
    calls_at_once: usize,
    namespaces: Namespaces,
) {
    let callers = join_all((0..calls_at_once.div_ceil(EACH)).map(|_| bench.caller("flood"))).await;
    let flood = Arc::new(Flood::default());
    let flooding: Vec<JoinHandle<()>> = (0..calls_at_once)
        .map(|number| {
            let namespace = match namespaces {
                Namespaces::Same => "honest".to_owned(),
                Namespaces::Other => "flood".to_owned(),
                Namespaces::Many => format!("flood-{number}"),
            };
            let what = format!("{}-{number}", name.replace([' ', ','], "-"));
            tokio::spawn(flood.clone().go_on(callers[number / EACH].clone(), namespace, what))
        })
        .collect();
    // It is under way when each of its calls may have been answered once.
    while flood.answered.load(Ordering::Relaxed) < calls_at_once.min(256) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let before = flood.counts();
    let began = Instant::now();
    let mut took = calls(honest, &name.replace([' ', ','], "-")).await;
    let (after, lasted) = (flood.counts(), began.elapsed().as_secs_f64());
    flood.over.store(true, Ordering::Relaxed);
    join_all(flooding).await;
    report(&format!("beside {name}"), &mut took);
    println!(
        "  the flood: {:.0} calls/s answered, {:.0}/s refused",
        (after.0 - before.0) as f64 / lasted,
        (after.1 - before.1) as f64 / lasted
    );
}

#[derive(Default)]
struct Flood {
    answered: AtomicUsize,
    refused: AtomicUsize,
    over: AtomicBool,
}

impl Flood {
    async fn go_on(self: Arc<Self>, caller: Caller, namespace: String, what: String) {
        for number in 0.. {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let count = match caller.ask(&namespace, &format!("{what}-{number}")).await {
                Ok(()) => &self.answered,
                Err(refused) if refused.code() == Code::ResourceExhausted => &self.refused,
                Err(failed) => panic!("{failed}"),
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counts(&self) -> (usize, usize) {
        (self.answered.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}
