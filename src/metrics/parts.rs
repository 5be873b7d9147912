//! What the parts behind the calls count.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts,
};

use super::{Measures, made};
use crate::approval::{Event, EventKind};

/// Where calls to the gate end.
#[derive(Clone)]
pub struct Outcomes(Each<5>);

impl Default for Outcomes {
    fn default() -> Self {
        let help = "Answers of the gate, by what it said";
        let values = ["not_required", "approved", "repeated", "pending", "denied"];
        Self(Each::new("approval_authority_gate_outcomes_total", help, "outcome", values))
    }
}

impl Outcomes {
    /// The action is not gated.
    pub fn not_required(&self) {
        self.0.each[0].inc();
    }

    /// An approval was used, or its use was told again.
    pub fn approved(&self, again: bool) {
        self.0.each[if again { 2 } else { 1 }].inc();
    }

    /// People are being asked.
    pub fn pending(&self) {
        self.0.each[3].inc();
    }

    /// People have said no.
    pub fn denied(&self) {
        self.0.each[4].inc();
    }

    /// All of them.
    pub fn measures(&self) -> Measures {
        vec![Box::new(self.0.all.clone())]
    }
}

/// Calls for which there was no place.
#[derive(Clone, Debug)]
pub struct Refusals(Each<2>);

impl Default for Refusals {
    fn default() -> Self {
        let help = "Calls and streams that were refused because a limit was reached, by whose";
        let values = ["principal", "server"];
        Self(Each::new("approval_authority_refused_calls_total", help, "limit", values))
    }
}

impl Refusals {
    /// By the limit of each principal.
    pub fn one_principals(&self) {
        self.0.each[0].inc();
    }

    /// By the limit of all.
    pub fn everybodys(&self) {
        self.0.each[1].inc();
    }

    /// All of them.
    pub fn measures(&self) -> Measures {
        vec![Box::new(self.0.all.clone())]
    }
}

/// Connections that the pool made.
#[derive(Clone)]
pub struct Opened {
    /// Those that came about.
    pub made: IntCounter,
    /// Those that did not.
    pub failed: IntCounter,
}

impl Default for Opened {
    fn default() -> Self {
        let made_help = "Connections to the database that were made";
        let failed_help = "Connections to the database that could not be made";
        let counter = |name, help| made(IntCounter::new(name, help));
        Self {
            made: counter("approval_authority_database_connections_made_total", made_help),
            failed: counter("approval_authority_database_connections_failed_total", failed_help),
        }
    }
}

impl Opened {
    /// All of them.
    pub fn measures(&self) -> Measures {
        vec![Box::new(self.made.clone()), Box::new(self.failed.clone())]
    }
}

/// What the ledger does, in batches.
#[derive(Clone)]
pub struct Batches {
    size: HistogramVec,
    seconds: HistogramVec,
    /// Of looks.
    pub looks: Batch,
    /// Of commits.
    pub commits: Batch,
    unknown: Each<3>,
    events: IntCounterVec,
    by_kind: Arc<[IntCounter]>,
    decided: HistogramVec,
    approved: Histogram,
    denied: Histogram,
}

/// Batches of one kind.
#[derive(Clone)]
pub struct Batch {
    size: Histogram,
    seconds: Histogram,
}

impl Batch {
    /// A batch of so many is over.
    pub fn done(&self, size: usize, took: Duration) {
        self.size.observe(size as f64);
        self.seconds.observe(took.as_secs_f64());
    }
}

/// From a person at the keyboard to the longest that anything stays pending by default, and beyond.
const TO_DECIDE: [f64; 12] = [
    5.0, 15.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0, 14_400.0, 28_800.0, 86_400.0, 259_200.0,
    604_800.0,
];

impl Default for Batches {
    fn default() -> Self {
        let sizes = vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];
        let seconds = vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
        let vec = |name, help, label, buckets| {
            made(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), &[label]))
        };
        let size = "Commands that one transaction, or one look, was for";
        let size = vec("approval_authority_batch_size", size, "kind", sizes);
        let time = "How long a transaction of the ledger's, or a look, took";
        let seconds = vec("approval_authority_batch_seconds", time, "kind", seconds);
        let decided = "From the request to the verdict that settled it";
        let decided =
            vec("approval_authority_decision_seconds", decided, "decision", TO_DECIDE.to_vec());
        let [approved, denied] =
            ["approve", "deny"].map(|decision| decided.with_label_values(&[decision]));
        let batch = |kind| Batch {
            size: size.with_label_values(&[kind]),
            seconds: seconds.with_label_values(&[kind]),
        };
        let (looks, commits) = (batch("look"), batch("commit"));
        let unknown =
            "COMMITs of the ledger's whose outcome the database did not say, by what was found out";
        let unknown = Each::new(
            "approval_authority_commits_unknown_total",
            unknown,
            "found",
            ["committed", "rolled_back", "nothing"],
        );
        let events = "What was written to the logs, by type";
        let events = Opts::new("approval_authority_events_total", events);
        let events = made(IntCounterVec::new(events, &["type"]));
        let by_kind = EventKind::ALL.iter().map(|kind| events.with_label_values(&[kind.as_str()]));
        let by_kind = by_kind.collect();
        Self { size, seconds, looks, commits, unknown, events, by_kind, decided, approved, denied }
    }
}

impl Batches {
    /// What was found out about a COMMIT that was not answered: that it was committed, that it was not, or nothing.
    pub fn found_out(&self, committed: Option<bool>) {
        let which = match committed {
            Some(true) => 0,
            Some(false) => 1,
            None => 2,
        };
        self.unknown.each[which].inc();
    }

    /// Something happened, and will not be undone.
    pub fn event(&self, event: &Event) {
        // `ALL` is in the order in which they are declared.
        self.by_kind[event.kind as usize].inc();
        let decided = match event.kind {
            EventKind::Approved => &self.approved,
            EventKind::Denied => &self.denied,
            _ => return,
        };
        let after = event.time.duration_since(event.approval.request.create_time);
        decided.observe(after.as_secs_f64());
    }

    /// All of them.
    pub fn measures(&self) -> Measures {
        vec![
            Box::new(self.size.clone()),
            Box::new(self.seconds.clone()),
            Box::new(self.unknown.all.clone()),
            Box::new(self.events.clone()),
            Box::new(self.decided.clone()),
        ]
    }
}

/// How well the feed keeps up.
#[derive(Clone)]
pub struct Follows {
    /// For how long the tail that is furthest behind has been so, in seconds.
    pub lag: Gauge,
    /// Looks at the logs that came to nothing.
    pub failures: IntCounter,
}

impl Default for Follows {
    fn default() -> Self {
        let lag =
            "For how long the log that is furthest behind has had events that are not passed on";
        let failures = "Polls of the logs, and readings of one, that failed";
        Self {
            lag: made(Gauge::new("approval_authority_feed_lag_seconds", lag)),
            failures: made(IntCounter::new("approval_authority_feed_failures_total", failures)),
        }
    }
}

impl Follows {
    /// All of them.
    pub fn measures(&self) -> Measures {
        vec![Box::new(self.lag.clone()), Box::new(self.failures.clone())]
    }
}

/// Into what pending approvals are told apart by age: up to so many seconds, and what that is called.
pub const AGES: [(u64, &str); 5] = [
    (300, "under_5m"),
    (3_600, "5m_to_1h"),
    (14_400, "1h_to_4h"),
    (86_400, "4h_to_24h"),
    (u64::MAX, "over_24h"),
];

/// What the keeper does, and sees.
#[derive(Clone)]
pub struct Rounds {
    last: IntGaugeVec,
    failed: IntCounterVec,
    pending: IntGaugeVec,
    oldest: Gauge,
}

impl Default for Rounds {
    fn default() -> Self {
        let last = "When a round of the keeper's last came to its end, as Unix time";
        let last = Opts::new("approval_authority_keeper_last_run_timestamp_seconds", last);
        let failed = "Rounds of the keeper's that failed";
        let failed = Opts::new("approval_authority_keeper_failures_total", failed);
        let pending =
            "Approvals that wait for people, by how long; the oldest thousand are counted";
        let pending = Opts::new("approval_authority_pending_approvals", pending);
        let oldest = "For how long the oldest pending approval has waited; 0 if there is none";
        let rounds = Self {
            last: made(IntGaugeVec::new(last, &["work"])),
            failed: made(IntCounterVec::new(failed, &["work"])),
            pending: made(IntGaugeVec::new(pending, &["age"])),
            oldest: made(Gauge::new("approval_authority_pending_oldest_seconds", oldest)),
        };
        for work in ["deadlines", "retention", "pending"] {
            rounds.last.with_label_values(&[work]);
            rounds.failed.with_label_values(&[work]);
        }
        rounds
    }
}

impl Rounds {
    /// A round of this work is over.
    pub fn ended<T, E>(&self, work: &str, how: &Result<T, E>) {
        match how {
            Ok(_) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let now = now.map_or(0, |since| since.as_secs());
                self.last.with_label_values(&[work]).set(now.cast_signed());
            }
            Err(_) => self.failed.with_label_values(&[work]).inc(),
        }
    }

    /// How many approvals are pending, by the ages of `AGES`, and for how long the oldest of them has been.
    pub fn pending(&self, counts: [i64; AGES.len()], oldest: Duration) {
        for ((_, age), count) in AGES.iter().zip(counts) {
            self.pending.with_label_values(&[age]).set(count);
        }
        self.oldest.set(oldest.as_secs_f64());
    }

    /// All of them.
    pub fn measures(&self) -> Measures {
        vec![
            Box::new(self.last.clone()),
            Box::new(self.failed.clone()),
            Box::new(self.pending.clone()),
            Box::new(self.oldest.clone()),
        ]
    }
}

/// Counters of one name, found once for each value of their label.
#[derive(Clone, Debug)]
struct Each<const N: usize> {
    all: IntCounterVec,
    each: Arc<[IntCounter; N]>,
}

impl<const N: usize> Each<N> {
    fn new(name: &str, help: &str, label: &str, values: [&str; N]) -> Self {
        let all = made(IntCounterVec::new(Opts::new(name, help), &[label]));
        let each = values.map(|value| all.with_label_values(&[value]));
        Self { all, each: Arc::new(each) }
    }
}
