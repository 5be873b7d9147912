//! Calls, under the names that gRPC servers everywhere have for them.

use std::{collections::HashMap, sync::Arc, time::Instant};

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts};

use super::{Measures, made};

/// The codes of gRPC as they are written there, by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Of a call whose caller went away before it was answered in full.
const CANCELED: usize = 1;
const UNKNOWN: usize = 2;

/// From an answer of the feed's to the longest wait for a decision.
const SECONDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

const LABELS: [&str; 3] = ["grpc_type", "grpc_service", "grpc_method"];

/// A method of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// With its package.
    pub service: String,
    /// Its name.
    pub method: String,
    /// `unary`, `server_stream`, `client_stream` or `bidi_stream`.
    pub kind: &'static str,
}

/// All calls, by method.
pub struct Calls {
    started: IntCounterVec,
    handled: IntCounterVec,
    seconds: HistogramVec,
    methods: HashMap<String, Arc<Method>>,
    /// Of which there is no end.
    others: Arc<Method>,
}

/// One method's.
struct Method {
    described: Described,
    started: IntCounter,
    handled: [IntCounter; CODES.len()],
    seconds: Histogram,
}

impl Calls {
    /// Of these methods. All others are counted as one.
    pub fn of(methods: impl IntoIterator<Item = Described>) -> Self {
        let started = "Calls that were begun";
        let handled = "Calls that were ended, by how";
        let seconds = "From the headers of a call to the end of its answer";
        let started = IntCounterVec::new(Opts::new("grpc_server_started_total", started), &LABELS);
        let with_code = [&LABELS[..], &["grpc_code"]].concat();
        let handled =
            IntCounterVec::new(Opts::new("grpc_server_handled_total", handled), &with_code);
        let seconds = HistogramOpts::new("grpc_server_handling_seconds", seconds);
        let seconds = HistogramVec::new(seconds.buckets(SECONDS.to_vec()), &LABELS);
        let (started, handled, seconds) = (made(started), made(handled), made(seconds));
        let method = |described: Described| {
            let Described { service, method, kind } = &described;
            let labels = [*kind, service, method];
            Arc::new(Method {
                started: started.with_label_values(&labels),
                handled: CODES
                    .map(|code| handled.with_label_values(&[*kind, service, method, code])),
                seconds: seconds.with_label_values(&labels),
                described,
            })
        };
        let unknown = || "unknown".to_owned();
        let others = method(Described { service: unknown(), method: unknown(), kind: "unary" });
        let methods = methods
            .into_iter()
            .map(|described| {
                (format!("/{}/{}", described.service, described.method), method(described))
            })
            .collect();
        Self { started, handled, seconds, methods, others }
    }

    /// All of them.
    pub fn measures(&self) -> Measures {
        vec![
            Box::new(self.started.clone()),
            Box::new(self.handled.clone()),
            Box::new(self.seconds.clone()),
        ]
    }

    /// Counts a call until this is dropped.
    pub fn begin(&self, path: &str) -> InProgress {
        let method = self.methods.get(path).unwrap_or(&self.others).clone();
        method.started.inc();
        InProgress { method, began: Instant::now(), code: CANCELED }
    }
}

/// A call that is being answered.
pub struct InProgress {
    method: Arc<Method>,
    began: Instant,
    code: usize,
}

impl InProgress {
    /// The method that is called, as its contract has it and whatever the caller wrote.
    pub fn method(&self) -> &Described {
        &self.method.described
    }

    /// Says how it ends. If nobody does, its caller went away.
    pub fn ends_with(&mut self, code: i32) {
        let code = usize::try_from(code).ok().filter(|code| *code < CODES.len());
        self.code = code.unwrap_or(UNKNOWN);
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.method.handled[self.code].inc();
        self.method.seconds.observe(self.began.elapsed().as_secs_f64());
    }
}
