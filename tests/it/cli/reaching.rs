//! How the authority is reached: TLS, certificates, and no plaintext by mistake.

use super::{Person, bare, run};
use crate::{certificates::Authority, database::Database, gate::Token, server::Process};

#[tokio::test]
async fn the_authority_is_known_by_its_certificate_and_a_person_may_be() {
    let database = Database::new().await;
    let (servers, people) = (Authority::new("servers"), Authority::new("people"));
    let shown = servers.certify(&["localhost"]);
    let viewer = ("viewer", "carla.test");
    let server = Process::with_certificates(&database.url, &shown, &people, viewer).await;

    let own = tempfile::tempdir().expect("a folder");
    let file = |name: &str| own.path().join(name).display().to_string();
    std::fs::write(file("ca.pem"), servers.pem()).expect("written");
    let carla = people.certify(&["carla.test"]);
    std::fs::write(file("carla.pem"), &carla.cert).expect("written");
    std::fs::write(file("carla.key"), &carla.key).expect("written");
    let url = format!("https://localhost:{}", server.address.port());
    let token = Token::of("alice");
    let token = token.path().display().to_string();
    let pending = async |arguments: &[&str]| {
        let mut command = bare(&["pending", "--server", &url]);
        // A person who shows a certificate may have the token of another deployment in the environment.
        command.args(arguments).env("APPROVAL_AUTHORITY_TOKEN", "nobody-knows-this-token");
        run(command).await
    };
    let (ca, cert, key) = (file("ca.pem"), file("carla.pem"), file("carla.key"));
    let known = pending(&["--ca", &ca, "--token-file", &token]).await;
    assert_eq!(known.code, Some(0), "{known:?}");
    let certified = pending(&["--ca", &ca, "--cert", &cert, "--key", &key]).await;
    assert_eq!(certified.code, Some(0), "{certified:?}");
    let half = pending(&["--ca", &ca, "--cert", &cert]).await;
    assert_eq!(half.code, Some(2), "{half:?}");
    let unknown = pending(&["--token-file", &token]).await;
    assert_eq!(unknown.code, Some(7), "{unknown:?}");
    assert!(unknown.err.contains("certificate"), "{unknown:?}");
}

#[tokio::test]
async fn a_token_does_not_leave_this_machine_in_plaintext_by_mistake() {
    let alice = Person::of("alice", "10.255.255.1:1".parse().expect("an address"));
    let mut command = alice.command(&["pending"]);
    command.args(["--ca", "/nowhere"]);
    assert_eq!(run(command).await.code, Some(2));
    let token = Token::of("alice");
    let mut command = bare(&["pending", "--server", "http://10.255.255.1:1", "--token-file"]);
    let refused = run({
        command.arg(token.path());
        command
    })
    .await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("--allow-plaintext"), "{refused:?}");
}
