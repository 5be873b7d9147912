//! The gate over TLS.

use std::time::Duration;

use approval_authority::gate::{Builder, Fault, Gate};

use super::{Token, fault, operation, pending};
use crate::{
    certificates::Authority,
    database::Database,
    server::{Process, policy_text, write_deployment},
};

const NAME: &str = "approvals.test";

#[tokio::test]
async fn a_gate_knows_its_authority_and_is_known_by_its_certificate() {
    let database = Database::new().await;
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let folder = tempfile::tempdir().expect("a folder");
    let mtls = "[server.tls]\ncert = \"server.pem\"\nkey = \"server.key\"\nclient_ca = \"clients.pem\"\n\
         [auth.mtls]\nsubject = \"dns\"\n";
    write_deployment(folder.path(), &database.url, mtls);
    let binding = "\n[[bindings]]\nrole = \"requester\"\nprincipals = [\"mtls:backend.test\"]\n\
         workspaces = [\"*\"]\n";
    std::fs::write(folder.path().join("policy.toml"), policy_text() + binding).expect("written");
    std::fs::write(folder.path().join("clients.pem"), clients.pem()).expect("written");
    authority.certify(&[NAME]).write(folder.path());
    let server = Process::of(folder).await;

    let to = || Gate::builder(format!("https://{}", server.address)).server_name(NAME);
    let trusting = || to().authorities(authority.pem());
    let ask = async |builder: Builder| {
        let gate = builder.deadline(Duration::from_secs(2)).connect().await.expect("a gate");
        gate.require(operation("w1")).await
    };
    let token = Token::of("backend");
    pending(ask(trusting().token_file(token.path())).await);
    let own = clients.certify(&["backend.test"]);
    pending(ask(trusting().identity(&own.cert, &own.key)).await);
    assert_eq!(fault(ask(trusting()).await).reason(), "UNAUTHENTICATED");

    let other = Authority::new("others");
    for untrusted in [to(), to().authorities(other.pem()), trusting().server_name("other.test")] {
        let fault = fault(ask(untrusted.token_file(token.path())).await);
        assert!(matches!(fault, Fault::Unreachable(_)), "{fault:?}");
    }
}
