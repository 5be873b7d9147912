//! Keys that are fetched from a URL: at the start, ahead of their expiry, and when a token names one that is not known.
//! What was fetched stays until the issuer says something else, be its server away for days.

use std::{fmt, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use reqwest::{Client, StatusCode, Url, header, redirect};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use super::KeySet;

/// Longest that one fetch may take, from the name's resolution to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Largest set of keys that is read.
const SET_BYTES: usize = 256 * 1024;

/// Calls that wait for a fetch. One more is refused: its key is as unknown as theirs.
const WAITING: usize = 1000;

/// How often keys are fetched.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long they are good, where the issuer does not say.
    pub usual: Duration,
    /// Shortest that they are taken to be good, whatever the issuer says.
    pub least: Duration,
    /// Longest.
    pub most: Duration,
    /// From a fetch that failed to the next.
    pub retry: Duration,
    /// Between two fetches because of a key that is not known: anybody can make up a name of one.
    pub unknown_key: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            usual: Duration::from_hours(1),
            least: Duration::from_mins(5),
            most: Duration::from_hours(24),
            retry: Duration::from_secs(10),
            unknown_key: Duration::from_secs(60),
        }
    }
}

/// Keys that a task keeps fresh as long as somebody holds this.
#[derive(Clone)]
pub struct Fetched {
    keys: watch::Receiver<Arc<KeySet>>,
    wanted: mpsc::Sender<oneshot::Sender<()>>,
}

impl Fetched {
    /// Begins to fetch the keys of an issuer. Until that has succeeded, there is none.
    pub fn start(issuer: &str, url: Url, pace: Pace) -> Result<Self> {
        let mut client = Client::builder()
            .timeout(TIMEOUT)
            // Elsewhere is not where the operator said that the keys are.
            .redirect(redirect::Policy::none())
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")));
        if url.scheme() == "http" {
            // It is of this machine: not asked for over the network, and on machines without any certificates, too.
            client = client.no_proxy().tls_certs_only([]);
        }
        let client = client.build().with_context(|| format!("auth.jwt.{issuer}: no TLS"))?;
        let (publish, keys) = watch::channel(Arc::default());
        let (wanted, asked) = mpsc::channel(WAITING);
        let source = Source { issuer: issuer.to_owned(), client, url, pace };
        tokio::spawn(source.follow(publish, asked));
        Ok(Self { keys, wanted })
    }

    /// What was fetched last.
    pub fn now(&self) -> Arc<KeySet> {
        self.keys.borrow().clone()
    }

    /// Has the keys fetched, unless that was done because of an unknown key a short while ago; waits for a fetch that
    /// is going on.
    pub async fn look_again(&self) {
        let (done, answer) = oneshot::channel();
        if self.wanted.try_send(done).is_ok() {
            // It is let go of when there is nothing more to wait for.
            let _ = answer.await;
        }
    }
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fetched({:?})", self.now())
    }
}

struct Source {
    issuer: String,
    client: Client,
    url: Url,
    pace: Pace,
}

impl Source {
    async fn follow(
        self,
        publish: watch::Sender<Arc<KeySet>>,
        mut asked: mpsc::Receiver<oneshot::Sender<()>>,
    ) {
        let mut last_asked: Option<Instant> = None;
        // Who has the next fetch made, if somebody does.
        let mut waiting = None;
        loop {
            let due = self.renew(&publish).await;
            // They get what this has brought, and so do those who have asked while it went on.
            drop(waiting.take());
            while asked.try_recv().is_ok() {}
            while waiting.is_none() {
                tokio::select! {
                    () = sleep_until(due) => break,
                    one = asked.recv() => {
                        let Some(one) = one else { return };
                        if last_asked.is_none_or(|at| at.elapsed() >= self.pace.unknown_key) {
                            last_asked = Some(Instant::now());
                            waiting = Some(one);
                        }
                    }
                }
            }
        }
    }

    /// Fetches the keys, and says when to do so next.
    async fn renew(&self, publish: &watch::Sender<Arc<KeySet>>) -> Instant {
        let issuer = &self.issuer;
        let next = match self.fetch().await {
            Ok((keys, lifetime)) => {
                if keys.is_empty() {
                    tracing::warn!(issuer, "the issuer has no key that can be used");
                } else {
                    tracing::debug!(issuer, ?keys, "fetched the issuer's keys");
                }
                publish.send_replace(Arc::new(keys));
                // Ahead of the expiry: there is time for some more tries.
                lifetime.unwrap_or(self.pace.usual).clamp(self.pace.least, self.pace.most) * 4 / 5
            }
            Err(error) => {
                let known = !publish.borrow().is_empty();
                tracing::warn!(issuer, known, "cannot fetch the issuer's keys: {error:#}");
                self.pace.retry
            }
        };
        Instant::now() + next
    }

    /// The keys as they are now, and for how long, if the answer says so.
    async fn fetch(&self) -> Result<(KeySet, Option<Duration>)> {
        let get = self.client.get(self.url.clone()).header(header::ACCEPT, "application/json");
        let mut response = get.send().await?;
        if response.status() != StatusCode::OK {
            bail!("{} answered {}", self.url, response.status());
        }
        let lifetime = lifetime(response.headers());
        let mut json = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            json.extend_from_slice(&chunk);
            if json.len() > SET_BYTES {
                bail!("{} answered with more than {SET_BYTES} bytes", self.url);
            }
        }
        match KeySet::parse(&json) {
            Ok(keys) => Ok((keys, lifetime)),
            Err(why) => bail!("what {} answered {why}", self.url),
        }
    }
}

/// For how long an answer is good, if it says so. One that is not to be stored is good for no time.
fn lifetime(headers: &header::HeaderMap) -> Option<Duration> {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|it| it.to_str().ok());
    let lifetimes = values.flat_map(|value| value.split(',')).filter_map(|directive| {
        let directive = directive.trim().to_ascii_lowercase();
        match directive.split_once('=') {
            Some(("max-age", seconds)) => seconds.trim_matches('"').parse().ok(),
            None if directive == "no-store" || directive == "no-cache" => Some(0),
            _ => None,
        }
    });
    lifetimes.min().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_how_long_it_is_good() {
        let told = |values: &[&'static str]| {
            let mut headers = header::HeaderMap::new();
            for value in values {
                headers.append(header::CACHE_CONTROL, header::HeaderValue::from_static(value));
            }
            lifetime(&headers).map(|lifetime| lifetime.as_secs())
        };
        assert_eq!(told(&[]), None);
        assert_eq!(told(&["public"]), None);
        assert_eq!(told(&["public, Max-Age=600, s-maxage=7"]), Some(600));
        assert_eq!(told(&["max-age=\"600\""]), Some(600));
        assert_eq!(told(&["public", "max-age=600, no-cache"]), Some(0));
        assert_eq!(told(&["max-age=soon"]), None);
    }
}
