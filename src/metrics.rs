//! What is counted, and how it is shown. Every name on the page is in this file or below it, and in `docs/metrics.md`.
//!
//! Each part of the service makes its own measures and keeps the handles of what it counts on the way of a call, found once:
//! to count is an addition to an atomic number. What can be read at any time is read when the page is asked for.
//! No label is a name that callers chose (a principal, a workspace, a namespace): there would be no end of them.

use prometheus::{
    IntGauge, Opts, Registry, TextEncoder,
    core::{Collector, Desc},
    process_collector::ProcessCollector,
    proto::MetricFamily,
};

mod calls;
mod parts;

pub use calls::{Calls, Described, InProgress};
pub use parts::{AGES, Batches, Follows, Opened, Outcomes, Refusals, Rounds};

/// What a part of the service measures.
pub type Measures = Vec<Box<dyn Collector>>;

/// The page of all measures. Cheap to clone.
#[derive(Clone)]
pub struct Page {
    registry: Registry,
}

impl Default for Page {
    /// With what is known of every process.
    fn default() -> Self {
        let build = "Always 1; the labels say what is running";
        let build = Opts::new("approval_authority_build_info", build)
            .const_label("version", env!("CARGO_PKG_VERSION"));
        let build = made(IntGauge::with_opts(build));
        build.set(1);
        let page = Self { registry: Registry::new() };
        page.add(vec![Box::new(ProcessCollector::for_self()), Box::new(build)]);
        page
    }
}

impl Page {
    /// Adds what a part measures. Each part is on a page once.
    #[allow(clippy::expect_used)]
    pub fn add(&self, measures: Measures) {
        for measure in measures {
            self.registry.register(measure).expect("each name is written once, here or below");
        }
    }

    /// The page in the text format of Prometheus (version 0.0.4).
    pub fn text(&self) -> Result<String, String> {
        TextEncoder::new().encode_to_string(&self.registry.gather()).map_err(|why| why.to_string())
    }
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Page").finish_non_exhaustive()
    }
}

/// Gauges that are read when the page is asked for, all at once so that they agree.
pub struct Read<F, const N: usize> {
    gauges: [IntGauge; N],
    read: F,
}

impl<F: Fn() -> [usize; N], const N: usize> Read<F, N> {
    /// A name and what it means for each number that `read` returns.
    pub fn new(names: [(&str, &str); N], read: F) -> Self {
        Self { gauges: names.map(|(name, help)| made(IntGauge::new(name, help))), read }
    }

    /// One name, and a label that tells the numbers apart.
    pub fn labelled(name: &str, help: &str, label: &str, values: [&str; N], read: F) -> Self {
        let gauge =
            |value| made(IntGauge::with_opts(Opts::new(name, help).const_label(label, value)));
        Self { gauges: values.map(gauge), read }
    }
}

impl<F: Fn() -> [usize; N] + Send + Sync, const N: usize> Collector for Read<F, N> {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (gauge, now) in self.gauges.iter().zip((self.read)()) {
            gauge.set(i64::try_from(now).unwrap_or(i64::MAX));
        }
        self.gauges.iter().flat_map(Collector::collect).collect()
    }
}

/// A measure that is made of constants.
#[allow(clippy::expect_used)]
fn made<T>(measure: prometheus::Result<T>) -> T {
    measure.expect("names, labels and buckets are constants that the tests have made")
}
