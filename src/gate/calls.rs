//! Calls to the authority, each within one deadline: asked again where that can help, of the next server, and given up
//! when it cannot, or when time is up.

use std::{
    error::Error,
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use tonic::{
    Code, Request, Response, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use super::{
    Fault,
    token::{Credential, Token},
};
use crate::proto::approval_service_client::ApprovalServiceClient;

/// No attempt is given less than this, unless the deadline comes first.
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(500);

/// The servers of one authority, and how they are called.
pub(crate) struct Calls {
    endpoints: Vec<Endpoint>,
    channels: Vec<Channel>,
    /// The server that answered last.
    answering: AtomicUsize,
    token: Option<Token>,
    deadline: Duration,
    pub(super) wait: Duration,
}

impl Calls {
    pub(super) fn new(
        endpoints: Vec<Endpoint>,
        token: Option<Token>,
        deadline: Duration,
        wait: Duration,
    ) -> Self {
        let channels = endpoints.iter().map(Endpoint::connect_lazy).collect();
        Self { endpoints, channels, answering: AtomicUsize::new(0), token, deadline, wait }
    }

    /// Calls until there is an answer, or a refusal that would be repeated, or no time.
    ///
    /// What is sent is made for each attempt, of how long it may still wait for people. Whether an attempt whose answer was
    /// lost has done its work nobody here can tell: to the authority all of them are one, or else whoever calls this looks at
    /// what became of the first when a later one is refused.
    pub(crate) async fn call<Asked, Answer, Answering>(
        &self,
        wait: Duration,
        message: impl Fn(Duration) -> Asked,
        call: impl Fn(ApprovalServiceClient<Channel>, Request<Asked>) -> Answering,
    ) -> Result<Answer, Fault>
    where
        Answering: Future<Output = Result<Response<Answer>, Status>>,
    {
        let begun = Instant::now();
        let (waited, end) = (begun + wait, begun + self.deadline);
        let mut server = self.answering.load(Ordering::Relaxed);
        let mut backoff = Backoff::default();
        let mut tried = 0;
        loop {
            let now = Instant::now();
            let (wait, left) =
                (waited.saturating_duration_since(now), end.saturating_duration_since(now));
            // Half of what is left beyond the wait: a server that swallows calls leaves time for the next.
            let patience = (wait + left.saturating_sub(wait) / 2).max(SHORTEST_ATTEMPT).min(left);
            let channel = &self.channels[server];
            let send = |credential: Option<Credential>| {
                let approvals = ApprovalServiceClient::new(channel.clone());
                let mut request = self.request(message(wait), credential);
                request.set_timeout(patience);
                call(approvals, request)
            };
            let status = match timeout(patience, self.attempt(send)).await {
                Ok(Ok(answer)) => {
                    self.answering.store(server, Ordering::Relaxed);
                    return Ok(answer.into_inner());
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer in time"),
            };
            if !passes(&status) {
                return Err(Fault::Refused(status));
            }
            tried += 1;
            server = (server + 1) % self.channels.len();
            let pause = match tried % self.channels.len() {
                0 => backoff.next().max(asked_for(&status)),
                // Another server may well be better off.
                _ => Duration::ZERO,
            };
            if Instant::now() + pause >= end {
                return Err(Fault::Unreachable(status));
            }
            sleep(pause).await;
        }
    }

    /// One attempt; and another if the token was replaced while it was under way.
    async fn attempt<Answer, Answering>(
        &self,
        send: impl Fn(Option<Credential>) -> Answering,
    ) -> Result<Answer, Status>
    where
        Answering: Future<Output = Result<Answer, Status>>,
    {
        let credential = self.credential().await;
        match send(credential.clone()).await {
            Err(status) if status.code() == Code::Unauthenticated => {
                let newer = self.credential().await;
                if newer == credential { Err(status) } else { send(newer).await }
            }
            answer => answer,
        }
    }

    pub(super) async fn credential(&self) -> Option<Credential> {
        match &self.token {
            Some(token) => Some(token.current().await),
            None => None,
        }
    }

    pub(super) fn request<Asked>(
        &self,
        message: Asked,
        credential: Option<Credential>,
    ) -> Request<Asked> {
        let mut request = Request::new(message);
        if let Some(credential) = credential {
            request.metadata_mut().insert("authorization", credential);
        }
        request
    }

    /// A connection of its own to one of the servers, counted round.
    pub(super) fn connection(&self, server: usize) -> Channel {
        self.endpoints[server % self.endpoints.len()].connect_lazy()
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls = self.endpoints.iter().map(|endpoint| endpoint.uri().to_string());
        f.debug_list().entries(urls).finish()
    }
}

/// Whether the same call may be answered otherwise if it is made again.
pub(crate) fn passes(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => true,
        Code::ResourceExhausted => status.get_details_retry_info().is_some(),
        // With a source it is no answer of a server's: a connection came to its end.
        _ => status.source().is_some(),
    }
}

/// How long the server asks to be left alone: a minute at most, however long it says.
pub(super) fn asked_for(status: &Status) -> Duration {
    let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
    asked.unwrap_or_default().min(Duration::from_secs(60))
}

/// Pauses between attempts: twice as long each time, up to a limit, and less by chance, so that callers that were cut off
/// together do not come back together.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    pauses: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);

    pub(super) fn next(&mut self) -> Duration {
        let most = Self::FIRST.saturating_mul(1 << self.pauses.min(16)).min(Self::LONGEST);
        self.pauses += 1;
        most.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_call_is_made_again_only_where_that_can_help() {
        for number in 1..=16 {
            let code = Code::from(number);
            let expected =
                matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled);
            assert_eq!(passes(&Status::new(code, "")), expected, "{code:?}");
        }
        let later = ErrorDetails::with_retry_info(Some(Duration::from_secs(3)));
        let later = Status::with_error_details(Code::ResourceExhausted, "", later);
        assert!(passes(&later));
        assert_eq!(asked_for(&later), Duration::from_secs(3));
        let never = ErrorDetails::with_retry_info(Some(Duration::MAX));
        let never = Status::with_error_details(Code::Unavailable, "", never);
        assert_eq!(asked_for(&never), Duration::from_secs(60));
        let mut broken = Status::unknown("transport error");
        broken.set_source(Arc::new(std::io::Error::other("reset")));
        assert!(passes(&broken));
    }

    #[test]
    fn pauses_grow_up_to_a_limit() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..40).map(|_| backoff.next()).collect();
        assert!((50..=100).contains(&pauses[0].as_millis()), "{pauses:?}");
        assert!(pauses[30..].iter().all(|pause| (2500..=5000).contains(&pause.as_millis())));
    }
}
