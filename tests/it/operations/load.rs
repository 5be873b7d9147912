//! A deployment in use: callers of gates, an approver who decides what a subscription shows, and a subscriber. What they
//! are told is recorded, and afterwards held against the database by the checkers of histories and of streams.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use approval_authority::{
    approval::{Decision, OperationResult},
    gate::{
        Builder, Gate, Held, Operation, Outcome, Report,
        subscribe::{EventType, Message},
    },
    proto::{Start, WatchApprovalsResponse},
};
use futures_util::future::join_all;
use jiff::SignedDuration;
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use uuid::Uuid;

use crate::{
    database::connect,
    feed::check::{Asked, check_log, check_stream, log},
    gate::gate_of,
    harness::Caller,
    history::{
        check::check,
        client::{make, not_done, seen},
        outcome::read,
        record::{self, Answer, Ask, Call, History, Row, Seen, Terms},
    },
    server::Process,
    watch::{from, revision},
};

const WORKERS: usize = 6;
const ACTION: &str = "secret_write";
const BACKEND: &str = "tokens:backend";
const APPROVER: &str = "tokens:alice";

/// So many of a thing that some of them were begun after the last of those before had ended.
const SOME: usize = 2 * WORKERS;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Before a verdict is tried again that was not taken.
const PAUSE: Duration = Duration::from_millis(20);

/// What the built-in policy says.
fn terms() -> Terms {
    Terms {
        quorums: [(ACTION.to_owned(), 1)].into(),
        pending_ttl: SignedDuration::from_hours(24),
        approved_ttl: SignedDuration::from_hours(1),
        deny_cooldown: SignedDuration::from_mins(15),
        max_pending: 100,
    }
}

/// Everybody who uses the deployment.
pub struct Load {
    book: Arc<Book>,
    workers: (watch::Sender<bool>, Vec<JoinHandle<()>>),
    approver: (watch::Sender<bool>, JoinHandle<()>),
    subscriber: (watch::Sender<Option<i64>>, JoinHandle<Vec<WatchApprovalsResponse>>),
}

/// What everybody was told.
struct Book {
    began: Instant,
    calls: Mutex<Vec<Call>>,
    /// Operations that were let through, executed and reported, of each worker.
    executed: watch::Sender<[usize; WORKERS]>,
    /// Why operations were held for want of an answer, and reports were not recorded.
    faults: watch::Sender<Vec<String>>,
}

impl Book {
    fn write(&self, began: Duration, by: &str, ask: Ask, answer: Answer) {
        let call = Call { began, ended: self.began.elapsed(), by: by.to_owned(), ask, answer };
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }

    fn fault(&self, fault: &dyn std::fmt::Display) -> Answer {
        self.faults.send_modify(|faults| faults.push(fault.to_string()));
        Answer::Unknown
    }
}

impl Load {
    /// Begins at servers on one database, with gates that know all of them.
    pub async fn start(servers: &[SocketAddr], change: impl Fn(Builder) -> Builder) -> Self {
        let book = Arc::new(Book {
            began: Instant::now(),
            calls: Mutex::default(),
            executed: watch::Sender::default(),
            faults: watch::Sender::default(),
        });
        let (over, _) = watch::channel(false);
        let mut workers = Vec::new();
        for worker in 0..WORKERS {
            // Half of them begin at the other one.
            let first = worker % servers.len();
            let servers = [&servers[first..], &servers[..first]].concat();
            let gate = gate_of("backend", &servers, &change).await;
            workers.push(tokio::spawn(work(worker, gate, book.clone(), over.subscribe())));
        }
        let (decided, deciding) = watch::channel(false);
        let gate = gate_of("alice", servers, |builder| builder).await;
        let callers = servers.iter().map(|server| Caller::lazy(*server, "alice")).collect();
        let approver = tokio::spawn(approve(gate, callers, book.clone(), deciding));
        let (end, ending) = watch::channel(None);
        let gate = gate_of("viewer", servers, |builder| builder).await;
        let subscriber = tokio::spawn(follow(gate, ending));
        Self {
            book,
            workers: (over, workers),
            approver: (decided, approver),
            subscriber: (end, subscriber),
        }
    }

    /// The time, as it is recorded.
    pub fn now(&self) -> Duration {
        self.book.began.elapsed()
    }

    /// Returns once operations have been executed that were asked for after this.
    pub async fn goes_on(&self) {
        let mut executed = self.book.executed.subscribe();
        // Two more of each: the second was asked for after this.
        let before = *executed.borrow();
        let each =
            |now: &[usize; WORKERS]| now.iter().zip(before).all(|(now, then)| *now >= then + 2);
        let goes_on = timeout(PATIENCE, executed.wait_for(each)).await;
        let Ok(executed) = goes_on else { panic!("it stands still: {:?}", self.faults()) };
        executed.expect("there is a sender");
    }

    /// Returns once operations are held for want of an answer that were asked for after this.
    pub async fn is_held(&self) {
        let mut faults = self.book.faults.subscribe();
        let enough = faults.borrow().len() + SOME;
        let held = timeout(PATIENCE, faults.wait_for(|faults| faults.len() >= enough)).await;
        held.expect("in time").expect("there is a sender");
    }

    /// Every fault so far.
    pub fn faults(&self) -> Vec<String> {
        self.book.faults.borrow().clone()
    }

    /// Has everybody come to an end, then the servers, and checks what they were told against the database that the URL
    /// leads to. Returns every call.
    pub async fn end(self, servers: Vec<Process>, url: &str) -> Vec<Call> {
        let (over, workers) = self.workers;
        over.send_replace(true);
        for worker in join_all(workers).await {
            worker.expect("no panic");
        }
        let (over, approver) = self.approver;
        over.send_replace(true);
        approver.await.expect("no panic");

        // Nobody writes any more: what is there now is the log.
        let log = log(url).await;
        let (end, subscriber) = self.subscriber;
        end.send_replace(log.last().map(|last| last.revision));
        let told = timeout(PATIENCE, subscriber).await.expect("it is sent all").expect("no panic");
        assert_eq!(check_stream(&told, Asked::All), []);
        assert_eq!(check_log(&told, &log), []);

        drop(servers);
        let (events, rows) = read(&connect(url).await).await;
        let calls =
            std::mem::take(&mut *self.book.calls.lock().unwrap_or_else(PoisonError::into_inner));
        let calls = with_keys(calls, &rows);
        println!(
            "{} calls, {} operations executed, {} events in {} messages, {} faults",
            calls.len(),
            self.book.executed.borrow().iter().sum::<usize>(),
            events.len(),
            told.len(),
            self.book.faults.borrow().len(),
        );
        let history = History { calls, events, rows, terms: terms() };
        let broken = check(&history);
        let first: Vec<_> = broken.iter().take(5).collect();
        assert!(broken.is_empty(), "{} violations, such as {first:#?}", broken.len());
        history.calls
    }
}

/// Asks for one operation after the other, each until it is let through, and reports what became of it.
async fn work(worker: usize, gate: Gate, book: Arc<Book>, over: watch::Receiver<bool>) {
    for number in 0.. {
        let operation = record::Operation {
            workspace: format!("w{worker}-{number}"),
            action: ACTION.to_owned(),
            context: "{}".to_owned(),
            requested_by: BACKEND.to_owned(),
            on_behalf_of: String::new(),
        };
        let permit = loop {
            if *over.borrow() {
                return;
            }
            let began = book.began.elapsed();
            let outcome = gate.require(Operation::new(&operation.workspace, ACTION)).await;
            let answer = match &outcome {
                Outcome::Permitted(permit) => {
                    Answer::LetThrough { seen: seen(permit.approval()), replayed: false }
                }
                Outcome::Held(Held::Pending(approval)) => Answer::Held(seen(Some(approval))),
                Outcome::Held(held) => book.fault(held),
            };
            book.write(
                began,
                BACKEND,
                Ask::Require { operation: operation.clone(), key: None },
                answer,
            );
            if let Outcome::Permitted(permit) = outcome {
                break permit;
            }
        };
        let consumed = seen(permit.approval());
        let began = book.began.elapsed();
        let answer = match permit.report(Report::Succeeded).await {
            Ok(()) => Answer::Done(Seen { version: consumed.version + 1, ..consumed }),
            Err(fault) => book.fault(&fault),
        };
        let result = OperationResult::Succeeded;
        let ask = Ask::Report { approval: consumed.approval, result };
        book.write(began, BACKEND, ask, answer);
        book.executed.send_modify(|executed| executed[worker] += 1);
    }
}

/// Approves what is requested, at whichever server takes the verdict.
async fn approve(
    gate: Gate,
    callers: Vec<Caller>,
    book: Arc<Book>,
    mut over: watch::Receiver<bool>,
) {
    let mut subscription = gate.subscribe(from(Start::Oldest));
    loop {
        let message = tokio::select! {
            next = subscription.next() => next.expect("it goes on").0,
            _ = over.wait_for(|over| *over) => return,
        };
        let Message::Event(event) = message else { continue };
        if event.r#type() != EventType::Requested {
            continue;
        }
        let approval = seen(event.approval.as_ref()).approval;
        let ask = Ask::Decide { approval, decision: Decision::Approve };
        for caller in callers.iter().cycle() {
            let began = book.began.elapsed();
            let answer = make(caller, &ask).await.unwrap_or_else(|status| not_done(&status));
            book.write(began, APPROVER, ask.clone(), answer.clone());
            match answer {
                Answer::Done(_) => break,
                // A verdict whose answer was lost, and the operation has gone on since.
                Answer::Refused(reason) if reason == "NOT_PENDING" => break,
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

/// Follows the log up to the revision that `end` tells at last.
async fn follow(gate: Gate, mut end: watch::Receiver<Option<i64>>) -> Vec<WatchApprovalsResponse> {
    let mut subscription = gate.subscribe(from(Start::Oldest));
    let mut told: Vec<WatchApprovalsResponse> = Vec::new();
    loop {
        let reached = told.last().map_or(0, revision);
        tokio::select! {
            next = subscription.next() => {
                let (message, cursor) = next.expect("it goes on");
                told.push(WatchApprovalsResponse { message: Some(message), cursor });
            }
            _ = end.wait_for(|end| end.is_some_and(|end| reached >= end)) => return told,
        }
    }
}

/// A gate keeps the keys of its attempts to itself. What was let through had the key that consumed; what was consumed and
/// nobody was told of is taken for the work of an attempt at that operation whose outcome is unknown, if there was one.
fn with_keys(mut calls: Vec<Call>, rows: &[Row]) -> Vec<Call> {
    let mut untold: HashMap<Uuid, &Row> = rows.iter().map(|row| (row.id, row)).collect();
    for call in &mut calls {
        if let (Ask::Require { key, .. }, Answer::LetThrough { seen, .. }) =
            (&mut call.ask, &call.answer)
        {
            let row = rows.iter().find(|row| row.id == seen.approval);
            *key = row.and_then(|row| row.consumed_key.clone());
            untold.remove(&seen.approval);
        }
    }
    for row in untold.into_values().filter(|row| row.consumed_key.is_some()) {
        let cause = calls.iter_mut().find_map(|call| match (&mut call.ask, &call.answer) {
            (Ask::Require { operation, key }, Answer::Unknown)
                if *operation == row.operation && key.is_none() =>
            {
                Some(key)
            }
            _ => None,
        });
        if let Some(key) = cause {
            key.clone_from(&row.consumed_key);
        }
    }
    calls
}
