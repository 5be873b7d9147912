//! What a gate is told at start.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::{Gate, Misconfigured, calls::Calls, token::Token};

/// How long a connection may take to come about, and the handshake of TLS on it.
const CONNECT: Duration = Duration::from_secs(2);

/// A connection that nobody answers on is given up and made anew: after this long without a sign, a ping, and this long to
/// answer it. While no call is in progress, too, so that the next one does not find out.
const PING_AFTER: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// What a stream, and all streams of a connection, are sent ahead of being read. Streams that are left unread must not
/// use up what the connection takes, or they stop all others on it.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// Longer than any call to the gate has use for, and short enough to be reckoned with.
const LONGEST_DEADLINE: Duration = Duration::from_secs(3_600);

/// The longest wait of the contract's.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What a gate is told at start; [`Gate::builder`] makes one.
pub struct Builder {
    endpoints: Vec<String>,
    token_file: Option<PathBuf>,
    token: Option<Token>,
    authorities: Option<Certificate>,
    identity: Option<Identity>,
    server_name: Option<String>,
    allow_plaintext: bool,
    deadline: Duration,
    wait: Duration,
}

impl Builder {
    pub(super) fn new(endpoint: String) -> Self {
        Self {
            endpoints: vec![endpoint],
            token_file: None,
            token: None,
            authorities: None,
            identity: None,
            server_name: None,
            allow_plaintext: false,
            deadline: Duration::from_secs(10),
            wait: Duration::ZERO,
        }
    }

    /// One more server on the same database. The first is asked; when it cannot answer, the next is, and goes on being
    /// asked for as long as it answers.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoints.push(url.into());
        self
    }

    /// A file with the bearer token. It is read for each call: replace it, and the next call has the new one.
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token_file = Some(path.into());
        self
    }

    /// A token that was opened before.
    #[cfg(feature = "server")]
    pub(crate) fn token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// The certificate authorities, in PEM, that the server's certificate must come from; unset: those of the system.
    pub fn authorities(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.authorities = Some(Certificate::from_pem(pem));
        self
    }

    /// A client certificate with the chain behind it, and its key, in PEM.
    pub fn identity(mut self, chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        self.identity = Some(Identity::from_pem(chain, key));
        self
    }

    /// The name that the server's certificate must be for; unset: the URL's host.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Lets a URL without TLS lead off this machine, where a mesh does TLS.
    pub fn allow_plaintext(mut self) -> Self {
        self.allow_plaintext = true;
        self
    }

    /// How long until an operation is held for want of an answer, retries and `wait` included: an hour at most; unset: 10 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long the authority waits for people to decide before it answers that it is pending; less than the deadline
    /// and a minute at most. Unset: not at all.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// The gate. Connections are made when they are needed: the authority need not be there yet.
    ///
    /// Fails where something here is wrong, or the file holds no token.
    pub async fn connect(self) -> Result<Gate, Misconfigured> {
        if self.deadline > LONGEST_DEADLINE {
            return Err(Misconfigured("deadline: must be an hour at most".into()));
        }
        if self.wait >= self.deadline || self.wait > LONGEST_WAIT {
            return Err(Misconfigured(
                "wait: must be less than the deadline, and 60 s at most".into(),
            ));
        }
        let endpoints: Result<Vec<_>, _> = self.endpoints.iter().map(|url| self.to(url)).collect();
        let endpoints = endpoints?;
        let token = match self.token_file {
            Some(path) => Some(Token::open(path).await.map_err(Misconfigured)?),
            None => self.token,
        };
        Ok(Gate(Arc::new(Calls::new(endpoints, token, self.deadline, self.wait))))
    }

    fn to(&self, url: &str) -> Result<Endpoint, Misconfigured> {
        let wrong = |why: &str| Misconfigured(format!("{url}: {why}"));
        let endpoint =
            Endpoint::from_shared(url.to_owned()).map_err(|_| wrong("is no URL of a server"))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let uri = endpoint.uri();
        match (uri.scheme_str(), uri.host()) {
            (Some("https"), Some(_)) => {}
            (Some("http"), Some(host)) if self.allow_plaintext || is_this_machine(host) => {
                let tls = self.authorities.is_some() || self.identity.is_some();
                return if tls { Err(wrong("is no https")) } else { Ok(endpoint) };
            }
            (Some("http"), Some(_)) => {
                return Err(wrong(
                    "leads off this machine without TLS; make it https, or allow_plaintext",
                ));
            }
            _ => return Err(wrong("must be https://HOST:PORT, or http on this machine")),
        }
        let mut tls = ClientTlsConfig::new().timeout(CONNECT);
        tls = match &self.authorities {
            Some(authorities) => tls.ca_certificate(authorities.clone()),
            None => tls.with_native_roots(),
        };
        if let Some(identity) = &self.identity {
            tls = tls.identity(identity.clone());
        }
        if let Some(name) = &self.server_name {
            tls = tls.domain_name(name);
        }
        endpoint.tls_config(tls).map_err(|error| {
            let source = std::error::Error::source(&error);
            wrong(&source.map_or_else(|| error.to_string(), ToString::to_string))
        })
    }
}

pub(crate) fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_cannot_work_is_refused_at_start() {
        let seconds = Duration::from_secs;
        let refused = [
            Gate::builder("approvals:50051"),
            Gate::builder("ftp://approvals"),
            Gate::builder("http://approvals:50051"),
            Gate::builder("http://10.0.0.1:50051"),
            Gate::builder("http://localhost.example.com:50051"),
            Gate::builder("https://a:1").endpoint("http://b:1"),
            Gate::builder("http://127.0.0.1:1").authorities("no PEM"),
            Gate::builder("https://a:1").identity("no PEM", "no PEM"),
            Gate::builder("https://a:1").token_file("/nowhere/token"),
            Gate::builder("https://a:1").wait(seconds(10)),
            Gate::builder("https://a:1").wait(seconds(61)).deadline(seconds(90)),
            Gate::builder("https://a:1").wait(Duration::MAX),
            Gate::builder("https://a:1").wait(Duration::MAX).deadline(Duration::MAX),
            Gate::builder("https://a:1").deadline(seconds(3_601)),
            Gate::builder("https://a:1").deadline(Duration::MAX),
        ];
        for (index, builder) in refused.into_iter().enumerate() {
            assert!(builder.connect().await.is_err(), "the {index}th");
        }
        let good = [
            Gate::builder("http://localhost:1"),
            Gate::builder("http://[::1]:1").endpoint("http://127.0.0.1:2"),
            Gate::builder("http://approvals:1").allow_plaintext(),
            Gate::builder("https://a:1").wait(seconds(60)).deadline(seconds(61)),
            Gate::builder("https://a:1").deadline(seconds(3_600)),
        ];
        for builder in good {
            builder.connect().await.expect("good");
        }
    }
}
