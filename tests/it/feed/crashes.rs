//! Complete, dense and in order: under many writers on two servers, while the database crashes and transactions are
//! lost, for subscribers that resume wherever they are.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use approval_authority::{
    embedded::{Cluster, Keep},
    proto::{Approval, Decision, Start, WatchApprovalsResponse},
};
use futures_util::future::{BoxFuture, FutureExt, join_all};
use nix::sys::signal::Signal;
use tokio::sync::watch;
use tonic::Status;

use super::{
    assert_resumable,
    check::{self, Asked, check_log, check_resumed, check_stream},
};
use crate::{
    database::{cluster_folder, deploy, installation},
    harness::{Caller, id, request},
    processes::{processes, signal},
    proxy::{Fate, Proxy},
    rng::Rng,
    server::Process,
    watch::{after, from, next, revision},
};

const WRITERS: usize = 32;
const WATCHERS: usize = 4;

/// Answers between two crashes, and after the last.
const ANSWERS: usize = 600;

/// Before a call is tried again that found no database.
const PAUSE: Duration = Duration::from_millis(20);

/// A cluster that can crash. One of the servers is behind a proxy.
struct Scene {
    folder: PathBuf,
    cluster: Cluster,
    proxy: Proxy,
    servers: [Process; 2],
}

impl Scene {
    async fn new() -> Self {
        let folder = cluster_folder();
        let cluster = run(&folder, Keep::Data).await;
        let url = deploy(&cluster, "approvals").await;
        let proxy = Proxy::new(&url).await;
        let (one, two) = tokio::join!(Process::serve(&proxy.url), Process::serve(&url));
        Self { folder, cluster, proxy, servers: [one, two] }
    }

    /// What `pg_ctl stop -m immediate` does, and a start.
    async fn crash(self, keep: Keep) -> Self {
        let Self { folder, cluster, proxy, servers } = self;
        signal(&processes(&cluster)[..1], Signal::SIGQUIT);
        while cluster.pid().is_some() {
            tokio::time::sleep(PAUSE).await;
        }
        cluster.stop();
        let cluster = run(&folder, keep).await;
        Self { folder, cluster, proxy, servers }
    }

    async fn both(&self, subject: &str) -> [Caller; 2] {
        [self.servers[0].caller(subject).await, self.servers[1].caller(subject).await]
    }
}

async fn run(folder: &std::path::Path, keep: Keep) -> Cluster {
    Cluster::start(&installation(), folder, &[], keep).await.expect("started")
}

/// What writers share.
#[derive(Clone)]
struct Work {
    stop: Arc<AtomicBool>,
    answers: Arc<watch::Sender<usize>>,
}

impl Work {
    /// Calls until there is an answer; none when it is time to stop.
    async fn answer<T>(
        &self,
        call: impl Fn() -> BoxFuture<'static, Result<T, Status>>,
    ) -> Option<T> {
        while !self.stop.load(Ordering::Relaxed) {
            match call().await {
                Ok(answer) => {
                    self.answers.send_modify(|answers| *answers += 1);
                    return Some(answer);
                }
                Err(refused) => assert_resumable(&refused),
            }
            tokio::time::sleep(PAUSE).await;
        }
        None
    }

    /// Asks, approves and uses, again and again. Returns each approval as it was answered.
    async fn write(&self, writer: usize, backend: Caller, alice: Caller) -> Vec<Approval> {
        let mut told = Vec::new();
        for number in 0.. {
            let ask = || {
                let (backend, workspace) = (backend.clone(), format!("w{writer}-{number}"));
                async move { backend.ask(request(&workspace, "secret_write")).await }.boxed()
            };
            let Some(held) = self.answer(ask).await else { break };
            let approve = || {
                let (alice, asked) = (alice.clone(), id(&held));
                async move { alice.decide(&asked, Decision::Approve).await }.boxed()
            };
            let Some(approved) = self.answer(approve).await else { break };
            let through = self.answer(ask).await;
            let through = through.and_then(|through| through.approval);
            told.extend([held.approval, Some(approved), through].into_iter().flatten());
        }
        told
    }
}

/// Follows the log through streams of any length on either server, up to the revision that `end` tells at last.
async fn follow(
    viewers: [Caller; 2],
    mut rng: Rng,
    mut end: watch::Receiver<Option<i64>>,
) -> (Vec<WatchApprovalsResponse>, usize) {
    let mut history: Vec<WatchApprovalsResponse> = Vec::new();
    let mut errors = 0;
    loop {
        let start = history.last().map_or(from(Start::Oldest), |last| after(&last.cursor));
        let mut stream = match viewers[rng.index(0..2)].watch(start).await {
            Ok(stream) => stream,
            Err(refused) => {
                assert_resumable(&refused);
                errors += 1;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        for _ in 0..rng.index(1..400) {
            let reached = history.last().map_or(0, revision);
            tokio::select! {
                message = stream.message() => match message {
                    Ok(response) => history.push(response.expect("an error ends a stream")),
                    Err(ended) => {
                        assert_resumable(&ended);
                        errors += 1;
                        break;
                    }
                },
                _ = end.wait_for(|end| end.is_some_and(|end| reached >= end)) => {
                    return (history, errors);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_see_the_log_as_it_is_whatever_happens_to_the_database() {
    let mut scene = Scene::new().await;
    let mut rng = Rng::drawn("commits");
    scene.proxy.each(move || match rng.index(0..100) {
        0..3 => Fate::Lost,
        3..6 => Fate::AnswerLost,
        _ => Fate::Passed,
    });
    let (answers, mut answered) = watch::channel(0);
    let work = Work { stop: Arc::default(), answers: Arc::new(answers) };
    let (backends, approvers) = (scene.both("backend").await, scene.both("alice").await);
    let writers = (0..WRITERS).map(|writer| {
        let (backend, alice) = (backends[writer % 2].clone(), approvers[writer % 2].clone());
        let work = work.clone();
        tokio::spawn(async move { work.write(writer, backend, alice).await })
    });
    let writers: Vec<_> = writers.collect();
    let viewers = scene.both("viewer").await;
    let (end, ending) = watch::channel(None);
    let watchers = (0..WATCHERS).map(|number| {
        let rng = Rng::drawn(&format!("watcher {number}"));
        tokio::spawn(follow(viewers.clone(), rng, ending.clone()))
    });
    let watchers: Vec<_> = watchers.collect();

    for (crash, keep) in [Keep::Data, Keep::Nothing].into_iter().enumerate() {
        let enough = (crash + 1) * ANSWERS;
        answered.wait_for(|answers| *answers >= enough).await.expect("writers");
        scene = scene.crash(keep).await;
    }
    answered.wait_for(|answers| *answers >= 3 * ANSWERS).await.expect("writers");
    work.stop.store(true, Ordering::Relaxed);
    let told: Vec<Approval> =
        join_all(writers).await.into_iter().flat_map(|writer| writer.expect("written")).collect();

    // Nobody writes any more: what is there now is the log.
    let log = check::log(&scene.cluster.url("approvals")).await;
    let revisions: Vec<i64> = log.iter().map(|entry| entry.revision).collect();
    let head = i64::try_from(log.len()).expect("fits");
    assert_eq!(revisions, (1..=head).collect::<Vec<i64>>(), "dense");
    for approval in &told {
        let kept = |entry: &&check::Entry| {
            entry.approval == approval.id && entry.version == approval.version
        };
        assert!(log.iter().find(kept).is_some(), "acknowledged and lost: {approval:?}");
    }
    assert!(scene.proxy.struck() > 0, "some commits were lost");

    end.send_replace(Some(head));
    let mut rng = Rng::drawn("cuts");
    for watcher in join_all(watchers).await {
        let (history, errors) = watcher.expect("watched");
        assert_eq!(check_stream(&history, Asked::All), []);
        assert_eq!(check_log(&history, &log), []);
        println!(
            "{head} events in {} messages, {errors} errors; {} commits struck",
            history.len(),
            scene.proxy.struck()
        );
        for _ in 0..10 {
            let at = rng.index(0..history.len() - 1);
            let mut stream =
                viewers[rng.index(0..2)].watch(after(&history[at].cursor)).await.expect("resumed");
            let mut resumed = vec![next(&mut stream).await];
            let rest = check::entries(&history[at + 1..]).len();
            for _ in 0..rest.min(5) {
                resumed.push(next(&mut stream).await);
            }
            assert_eq!(check_resumed(&history, at, &resumed), []);
        }
    }
}
