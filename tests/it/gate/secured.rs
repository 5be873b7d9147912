//! The gate over TLS.

use std::time::Duration;

use approval_authority::gate::{Builder, Fault, Gate};

use super::{Token, fault, operation, pending};
use crate::{certificates::Authority, database::Database, server::Process};

const NAME: &str = "approvals.test";

#[tokio::test]
async fn a_gate_knows_its_authority_and_is_known_by_its_certificate() {
    let database = Database::new().await;
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let shown = authority.certify(&[NAME]);
    let requester = ("requester", "backend.test");
    let server = Process::with_certificates(&database.url, &shown, &clients, requester).await;

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
