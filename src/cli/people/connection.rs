//! How a person's command reaches the authority, and the calls that several commands make.

use std::{fs, path::Path, path::PathBuf, time::Duration};

use clap::Args;
use http::Uri;
use tonic::{Request, Response, Status, transport::Channel};

use super::{
    failure::{Exit, Failure},
    output::Output,
};
use crate::{
    config::ForPeople,
    gate::{Builder, Gate, builder::is_this_machine, token::Token},
    proto::{
        Approval, ApprovalState, GetApprovalRequest, GetPolicyRequest, ListApprovalsRequest,
        ListApprovalsResponse, approval_service_client::ApprovalServiceClient,
    },
};

/// Where `serve` and `dev` listen unless told otherwise.
const SERVER: &str = "127.0.0.1:50051";

/// How long a person waits for an answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What all commands have that call the authority.
#[derive(Args)]
pub(super) struct Common {
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t)]
    pub(super) output: Output,
    #[command(flatten)]
    pub(super) connection: Connection,
}

/// Where the authority is, and who calls.
#[derive(Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct Connection {
    /// The authority, as in https://approvals.example.com:50051 [default: 127.0.0.1:50051]
    /// [env: APPROVAL_AUTHORITY_SERVER]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// The organisation, in a deployment for several [env: APPROVAL_AUTHORITY_NAMESPACE]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// A file with your token [env: APPROVAL_AUTHORITY_TOKEN_FILE, or the token itself: APPROVAL_AUTHORITY_TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The certificate authorities that the server's certificate must come from, in PEM [default: the system's]
    /// [env: APPROVAL_AUTHORITY_CA]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A client certificate in PEM, for those who show one instead of a token.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Let an http:// URL lead off this machine, where a mesh does TLS.
    #[arg(long)]
    allow_plaintext: bool,
}

/// The authority, for one caller in one namespace.
pub(super) struct Authority {
    pub(super) gate: Gate,
    /// Its URL.
    pub(super) server: String,
    /// Empty for the default one.
    pub(super) namespace: String,
}

impl Connection {
    pub(super) async fn open(self) -> Result<Authority, Failure> {
        self.open_with(|gate| gate.deadline(PATIENCE)).await
    }

    /// Nothing is sent yet.
    pub(super) async fn open_with(
        self,
        settings: impl FnOnce(Builder) -> Builder,
    ) -> Result<Authority, Failure> {
        let usage = |why: String| Failure::new(Exit::Usage, why);
        let environment = ForPeople::read().map_err(usage)?;
        let server = self.server.or(environment.server).unwrap_or_else(|| SERVER.to_owned());
        let server = url(&server);
        let mut gate = settings(Gate::builder(&server));
        if self.allow_plaintext {
            gate = gate.allow_plaintext();
        }
        if let Some(authorities) = self.ca.or(environment.ca) {
            gate = gate.authorities(read(&authorities)?);
        }
        // What is said here goes before what the environment says, and only one of a kind is shown.
        let token = match (self.token_file, &self.cert) {
            (Some(file), _) => Some(open(file).await?),
            (None, Some(_)) => None,
            (None, None) => Some(match (environment.token_file, environment.token) {
                (Some(_), Some(_)) => {
                    return Err(usage(
                        "APPROVAL_AUTHORITY_TOKEN and APPROVAL_AUTHORITY_TOKEN_FILE are both set"
                            .to_owned(),
                    ));
                }
                (Some(file), None) => open(file).await?,
                (None, Some(token)) => Token::fixed(&token)
                    .ok_or_else(|| credential("APPROVAL_AUTHORITY_TOKEN holds no token"))?,
                (None, None) => {
                    return Err(credential(
                        "who are you? Set --token-file, or APPROVAL_AUTHORITY_TOKEN_FILE",
                    ));
                }
            }),
        };
        if let Some(token) = token {
            gate = gate.token(token);
        }
        if let (Some(certificate), Some(key)) = (self.cert, self.key) {
            gate = gate.identity(read(&certificate)?, read(&key)?);
        }
        let gate = gate.connect().await.map_err(|fault| {
            // The gate names the method of its builder.
            usage(fault.to_string().replace("allow_plaintext", "--allow-plaintext"))
        })?;
        let namespace = self.namespace.or(environment.namespace).unwrap_or_default();
        Ok(Authority { gate, server, namespace })
    }
}

/// A server's URL, where it may be said without its scheme.
fn url(server: &str) -> String {
    if server.contains("://") {
        return server.to_owned();
    }
    let https = format!("https://{server}");
    let uri = https.parse::<Uri>().ok();
    match uri.as_ref().and_then(Uri::host) {
        Some(host) if is_this_machine(host) => format!("http://{server}"),
        _ => https,
    }
}

fn credential(why: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Credential, why)
}

async fn open(token: PathBuf) -> Result<Token, Failure> {
    Token::open(token).await.map_err(credential)
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(file)
        .map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", file.display())))
}

/// An answer's approval, which the contract has it carry.
pub(super) fn carried(approval: Option<Approval>) -> Result<Approval, Failure> {
    approval.ok_or_else(|| Failure::new(Exit::Failure, "the answer came without its approval"))
}

impl Authority {
    /// Makes a call that waits for nobody.
    pub(super) async fn ask<Asked: Clone, Answer, Answering>(
        &self,
        asked: Asked,
        call: impl Fn(ApprovalServiceClient<Channel>, Request<Asked>) -> Answering,
    ) -> Result<Answer, Failure>
    where
        Answering: Future<Output = Result<Response<Answer>, Status>>,
    {
        let answered = self.gate.0.call(Duration::ZERO, |_| asked.clone(), call).await;
        answered.map_err(|fault| Failure::from(fault).at(&self.server))
    }

    /// What an action does, in the words of the policy; empty if it says nothing of it.
    pub(super) async fn effect_of(&self, action: &str) -> Result<String, Failure> {
        let policy = self.ask(GetPolicyRequest {}, async |mut approvals, request| {
            approvals.get_policy(request).await
        });
        let mut actions = policy.await?.actions.into_iter();
        Ok(actions.find(|rule| rule.action == action).map_or_else(String::new, |it| it.description))
    }

    pub(super) async fn get(&self, id: &str) -> Result<Approval, Failure> {
        let request =
            GetApprovalRequest { namespace: self.namespace.clone(), approval_id: id.to_owned() };
        let got =
            self.ask(request, async |mut approvals, request| approvals.get_approval(request).await);
        carried(got.await?.approval)
    }

    /// All pages of a list as one, or as many of them as it takes for a number of approvals.
    pub(super) async fn list(
        &self,
        request: ListApprovalsRequest,
        limit: usize,
    ) -> Result<ListApprovalsResponse, Failure> {
        let mut page = ListApprovalsRequest {
            namespace: self.namespace.clone(),
            page_size: limit.try_into().unwrap_or(i32::MAX),
            ..request
        };
        let mut all = ListApprovalsResponse::default();
        loop {
            let next = self.ask(page.clone(), async |mut approvals, request| {
                approvals.list_approvals(request).await
            });
            let next = next.await?;
            all.approvals.extend(next.approvals);
            if page.page_token.is_empty() {
                all.watch_cursor = next.watch_cursor;
            }
            if next.next_page_token.is_empty() || all.approvals.len() >= limit {
                all.approvals.truncate(limit);
                return Ok(all);
            }
            page.page_token = next.next_page_token;
        }
    }

    /// All approvals in some states; in any, if none is named.
    pub(super) async fn in_states(
        &self,
        states: &[ApprovalState],
    ) -> Result<Vec<Approval>, Failure> {
        let states = states.iter().map(|state| (*state).into()).collect();
        let request = ListApprovalsRequest { states, ..Default::default() };
        Ok(self.list(request, usize::MAX).await?.approvals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_is_for_this_machine_unless_the_url_says_so() {
        for (server, expected) in [
            ("127.0.0.1:50051", "http://127.0.0.1:50051"),
            ("[::1]:50051", "http://[::1]:50051"),
            ("localhost:50051", "http://localhost:50051"),
            ("approvals:50051", "https://approvals:50051"),
            ("10.0.0.1:50051", "https://10.0.0.1:50051"),
            ("http://approvals:50051", "http://approvals:50051"),
            ("https://127.0.0.1:50051", "https://127.0.0.1:50051"),
        ] {
            assert_eq!(url(server), expected);
        }
    }
}
