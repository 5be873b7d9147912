//! Where the time of a call goes, for those who follow it through several services: a span for each call, below the span of its caller, and
//! one for each batch of the ledger's that served it.
//!
//! Spans are made here and not from what is logged, so neither has a say in the other: how loud the log is hides no span, and no
//! span lengthens a line. Where nothing is exported a call costs a look at whether it is. A span holds no name, no words and no
//! credential of a caller's.

use std::{borrow::Cow, sync::OnceLock};

use futures_util::FutureExt as _;
use opentelemetry::{
    Context, ContextGuard, KeyValue,
    propagation::{Extractor, TextMapPropagator},
    trace::{FutureExt, Link, SpanKind, Status, TraceContextExt, Tracer},
};
use opentelemetry_sdk::{propagation::TraceContextPropagator, trace::SdkTracer};

use crate::metrics::Described;

/// Set once, where spans are exported.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// The codes of gRPC that are a server's fault, by the conventions of OpenTelemetry for spans of its kind: `UNKNOWN`,
/// `DEADLINE_EXCEEDED`, `UNIMPLEMENTED`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS`.
const FAULTS: [i32; 6] = [2, 4, 12, 13, 14, 15];

/// `CANCELLED`: nobody says how a call ends whose caller goes away.
const CANCELLED: i32 = 1;

/// Begins to make spans.
pub fn begin(tracer: SdkTracer) {
    // A second one would be of a second server in this process, which there is not.
    let _ = TRACER.set(tracer);
}

/// The id of the trace that the current task works for.
pub fn id() -> Option<String> {
    let Trace(context) = Trace::current();
    Some(context?.span().span_context().trace_id().to_string())
}

/// What work is done for: a call, where there are spans of calls.
#[derive(Clone, Debug, Default)]
pub struct Trace(Option<Context>);

impl Trace {
    /// What the current task works for.
    pub fn current() -> Self {
        if TRACER.get().is_none() {
            return Self(None);
        }
        let context = Context::current();
        Self(context.has_active_span().then_some(context))
    }

    /// Does work for it, in whichever task.
    pub fn carry<T>(self, work: impl Future<Output = T>) -> impl Future<Output = T> {
        match self.0 {
            Some(context) => work.with_context(context).left_future(),
            None => work.right_future(),
        }
    }

    /// What follows is done for it, until what is returned is dropped; none: it is nothing.
    pub fn attach(&self) -> Option<ContextGuard> {
        self.0.clone().map(Context::attach)
    }

    fn is_sampled(&self) -> bool {
        let Self(context) = self;
        context.as_ref().is_some_and(|context| context.span().span_context().is_sampled())
    }
}

/// The span of a call, which ends when this is dropped.
#[derive(Debug)]
pub struct Call {
    trace: Trace,
    code: i32,
}

impl Call {
    /// Below the span that its headers name, if they do.
    pub fn begin(method: &Described, headers: &dyn Extractor) -> Self {
        let begun = TRACER.get().map(|tracer| {
            let Described { service, method, .. } = method;
            let caller =
                TraceContextPropagator::new().extract_with_context(&Context::new(), headers);
            let span = tracer
                .span_builder(format!("{service}/{method}"))
                .with_kind(SpanKind::Server)
                .with_attributes([
                    KeyValue::new("rpc.system", "grpc"),
                    KeyValue::new("rpc.service", service.clone()),
                    KeyValue::new("rpc.method", method.clone()),
                ])
                .start_with_context(tracer, &caller);
            caller.with_span(span)
        });
        Self { trace: Trace(begun), code: CANCELLED }
    }

    /// What is done for it.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Says how it ends. If nobody does, its caller went away.
    pub fn ends_with(&mut self, code: i32) {
        self.code = code;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let Trace(Some(context)) = &self.trace else { return };
        let span = context.span();
        span.set_attribute(KeyValue::new("rpc.grpc.status_code", i64::from(self.code)));
        if FAULTS.contains(&self.code) {
            span.set_status(FAULT);
        }
        span.end();
    }
}

/// What went wrong is for the log.
const FAULT: Status = Status::Error { description: Cow::Borrowed("") };

/// Does what a batch is for within a span of its own, where a call that it serves has one: below the first of them, and with a
/// link to and from each. When it begins is an event of each call's, before which the call waited.
pub fn batch<'a, T, E>(
    name: &'static str,
    calls: impl ExactSizeIterator<Item = &'a Trace>,
    work: impl Future<Output = Result<T, E>>,
) -> impl Future<Output = Result<T, E>> {
    let Some(context) = begin_batch(name, calls) else { return work.left_future() };
    let traced = work.with_context(context.clone());
    let ended = traced.inspect(move |done| {
        if done.is_err() {
            context.span().set_status(FAULT);
        }
        context.span().end();
    });
    ended.right_future()
}

fn begin_batch<'a>(
    name: &'static str,
    calls: impl ExactSizeIterator<Item = &'a Trace>,
) -> Option<Context> {
    let tracer = TRACER.get()?;
    let size = calls.len() as i64;
    let calls: Vec<&Context> =
        calls.filter(|call| call.is_sampled()).filter_map(|call| call.0.as_ref()).collect();
    let first = *calls.first()?;
    let links = calls.iter().map(|call| Link::with_context(call.span().span_context().clone()));
    let span = tracer
        .span_builder(name)
        .with_kind(SpanKind::Internal)
        .with_links(links.collect())
        .with_attributes([KeyValue::new("batch.size", size)])
        .start_with_context(tracer, first);
    let batch = first.with_span(span);
    let of_batch = batch.span().span_context().clone();
    for call in calls {
        call.span().add_event(name, Vec::new());
        call.span().add_link(of_batch.clone(), Vec::new());
    }
    Some(batch)
}
