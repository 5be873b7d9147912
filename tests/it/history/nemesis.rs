//! What goes wrong: servers are killed and started again, stopped for a while, and lose what passes between them
//! and the database around COMMIT.

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use nix::sys::signal::Signal;

use super::outcome::Figures;
use crate::{
    proxy::{Fate, Proxy},
    rng::Rng,
    server::Process,
};

/// Of so many COMMITs one is not answered, and of more one does not arrive.
const ANSWER_LOST: u64 = 30;
const COMMIT_LOST: u64 = 60;

/// How often somebody is killed or stopped.
const FAULTS: usize = 12;

/// A server behind a proxy, and where callers find it.
pub struct Replica {
    proxy: Proxy,
    policy: String,
    process: tokio::sync::Mutex<Process>,
    address: Mutex<Option<SocketAddr>>,
}

impl Replica {
    pub async fn start(url: &str, policy: &str, mut rng: Rng) -> Self {
        let proxy = Proxy::new(url).await;
        let process = Process::with_policy(&proxy.url, policy).await;
        proxy.each(move || match rng.next() {
            chance if chance % ANSWER_LOST == 0 => Fate::AnswerLost,
            chance if chance % COMMIT_LOST == 1 => Fate::Lost,
            _ => Fate::Passed,
        });
        let address = Mutex::new(Some(process.address));
        Self { proxy, policy: policy.to_owned(), process: process.into(), address }
    }

    /// Where it listens; nowhere while it is known to be dead.
    pub fn address(&self) -> Option<SocketAddr> {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many COMMITs were lost, or their answers.
    pub fn lost(&self) -> usize {
        self.proxy.struck()
    }

    async fn kill_and_restart(&self, dead_for: Duration) {
        let mut process = self.process.lock().await;
        process.child.kill().await.expect("killed");
        self.move_to(None);
        tokio::time::sleep(dead_for).await;
        *process = Process::with_policy(&self.proxy.url, &self.policy).await;
        self.move_to(Some(process.address));
    }

    async fn stop_for_a_while(&self, time: Duration) {
        let process = self.process.lock().await;
        process.signal(Signal::SIGSTOP);
        tokio::time::sleep(time).await;
        process.signal(Signal::SIGCONT);
    }

    fn move_to(&self, address: Option<SocketAddr>) {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }
}

/// One fault after the other, each at one server, with some peace between.
pub async fn strike(replicas: &[Replica], mut rng: Rng, figures: &mut Figures) {
    for fault in 0..FAULTS {
        tokio::time::sleep(Duration::from_millis(rng.within(200..800))).await;
        let replica = rng.pick(replicas).expect("some");
        if fault % 2 == 0 {
            replica.kill_and_restart(Duration::from_millis(rng.within(0..500))).await;
            figures.kills += 1;
        } else {
            replica.stop_for_a_while(Duration::from_millis(rng.within(1000..3000))).await;
            figures.stops += 1;
        }
    }
}
