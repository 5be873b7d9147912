//! Callers that call, and how long it took them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::{Value, json};

/// Before anything counts.
const WARM_UP: Duration = Duration::from_millis(500);

/// How long callers call.
const SPAN: Duration = Duration::from_secs(3);

/// What was done how fast, by how many at once.
pub struct Figures {
    pub what: String,
    pub callers: usize,
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
    pub p999: Duration,
}

/// Lets callers call, each as soon as its last call is answered. `call` is given the number of the call, which is another
/// for each of this measurement; `most`: how many there may be.
pub async fn measure<C, F>(
    what: &str,
    callers: Vec<C>,
    most: usize,
    call: impl Fn(C, usize) -> F + Clone + Send + 'static,
) -> Figures
where
    C: Clone + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let count = callers.len();
    let began = Instant::now();
    let calling = callers.into_iter().map(|caller| {
        let (next, call) = (next.clone(), call.clone());
        tokio::spawn(async move {
            let mut took = Vec::new();
            while began.elapsed() < WARM_UP + SPAN {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= most {
                    break;
                }
                let start = Instant::now();
                call(caller.clone(), number).await;
                if start - began > WARM_UP {
                    took.push(start.elapsed());
                }
            }
            (took, began.elapsed())
        })
    });
    let done = join_all(calling).await.into_iter().map(|done| done.expect("no panic"));
    let (took, ended): (Vec<Vec<Duration>>, Vec<Duration>) = done.unzip();
    let mut took: Vec<Duration> = took.into_iter().flatten().collect();
    let span = ended.into_iter().max().expect("a caller") - WARM_UP;
    took.sort_unstable();
    let at = |thousandth: usize| took[(took.len() * thousandth / 1_000).min(took.len() - 1)];
    Figures {
        what: what.to_owned(),
        callers: count,
        per_second: took.len() as f64 / span.as_secs_f64(),
        p50: at(500),
        p99: at(990),
        p999: at(999),
    }
}

impl Figures {
    /// A line of the table.
    pub fn line(&self) -> String {
        let Self { what, callers, per_second, .. } = self;
        let [p50, p99, p999] = [self.p50, self.p99, self.p999].map(milliseconds);
        format!("{what:<22} {callers:>7} {per_second:>10.0} {p50:>9.2} {p99:>9.2} {p999:>9.2}")
    }

    /// The same for programs; times in milliseconds.
    pub fn json(&self) -> Value {
        let Self { what, callers, per_second, .. } = self;
        let [p50, p99, p999] = [self.p50, self.p99, self.p999].map(milliseconds);
        json!({ "what": what, "callers": callers, "per_second": per_second, "p50": p50, "p99": p99, "p999": p999 })
    }
}

/// The head of the table; times in milliseconds.
pub fn head() -> String {
    let [what, callers, rate] = ["what", "callers", "per second"];
    let [p50, p99, p999] = ["p50 ms", "p99 ms", "p99.9 ms"];
    format!("{what:<22} {callers:>7} {rate:>10} {p50:>9} {p99:>9} {p999:>9}")
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
