//! What starts and watches the service: health for containers, word to a service manager.

use std::{
    net::SocketAddr, os::unix::net::UnixDatagram, path::Path, process::Stdio, time::Duration,
};

use nix::sys::signal::Signal;
use tokio::net::TcpListener;

use crate::{
    certificates::{Authority, expired},
    database::Database,
    server::{Process, log_of, program, until, write_deployment},
};

/// The exit code of `health` for a deployment that listens there, and what it says.
async fn health(config: &Path, address: SocketAddr) -> (Option<i32>, String) {
    let mut command = program();
    command.arg("health").arg("--timeout").arg("1").arg("--config").arg(config);
    command.env("APPROVAL_AUTHORITY_SERVER__LISTEN", address.to_string());
    let output = command.output().await.expect("the program");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

#[tokio::test]
async fn health_is_that_of_the_server_which_the_configuration_names() {
    let database = Database::new().await;
    let mut process = Process::serve(&database.url).await;
    let config = process.file("approval-authority.toml");
    assert_eq!(health(&config, process.address).await, (Some(0), String::new()));

    process.child.kill().await.expect("killed");
    let (code, said) = health(&config, process.address).await;
    assert_eq!(code, Some(1), "nobody is there");
    assert!(said.contains(&process.address.to_string()), "{said}");
}

#[tokio::test]
async fn health_waits_no_longer_than_it_was_told_for_a_server_that_says_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let folder = tempfile::tempdir().expect("a folder");
    let config = write_deployment(folder.path(), "postgres://h/d", "");
    let (code, said) = health(&config, silent.local_addr().expect("bound")).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("within 1 s"), "{said}");
}

#[tokio::test]
async fn health_is_asked_over_tls_whatever_the_certificate_is_for() {
    let database = Database::new().await;
    let authority = Authority::new("theirs");
    for certified in [
        authority.certify(&["authority.test"]),
        authority.certify_with(&["authority.test"], expired),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        certified.write(folder.path());
        std::fs::write(folder.path().join("clients.pem"), authority.pem()).expect("written");
        let tls = "[server.tls]\ncert = \"server.pem\"\nkey = \"server.key\"\nclient_ca = \"clients.pem\"\n";
        let config = write_deployment(folder.path(), &database.url, tls);
        let process = Process::of(folder).await;
        assert_eq!(health(&config, process.address).await, (Some(0), String::new()));
    }
}

/// An address that nobody listens on.
async fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("bound")
}

/// A service manager.
struct Manager(tokio::net::UnixDatagram);

impl Manager {
    fn at(socket: &Path) -> Self {
        let socket = UnixDatagram::bind(socket).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        Self(tokio::net::UnixDatagram::from_std(socket).expect("a socket"))
    }

    async fn told(&self) -> String {
        let mut message = [0; 256];
        let told = tokio::time::timeout(Duration::from_secs(30), self.0.recv(&mut message)).await;
        let length = told.expect("in time").expect("a message");
        String::from_utf8_lossy(&message[..length]).into_owned()
    }

    fn has_been_told_nothing(&self) -> bool {
        self.0.try_recv(&mut [0; 256]).is_err()
    }
}

#[tokio::test]
async fn a_service_manager_is_told_when_it_answers_and_when_it_stops() {
    let database = Database::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    // Not there yet.
    let later = database.url.replace("dbname=", "dbname=ready_");
    let config = write_deployment(folder.path(), &later, "");
    let manager = Manager::at(&folder.path().join("notify"));
    let mut command = program();
    let address = free_port().await;
    command.env("APPROVAL_AUTHORITY_SERVER__LISTEN", address.to_string());
    command.env("RUST_LOG", "warn").env("NOTIFY_SOCKET", folder.path().join("notify"));
    command.arg("serve").arg("--config").arg(&config);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program");
    until(&mut log_of(&mut child), "waiting for the database").await;
    assert!(manager.has_been_told_nothing(), "it has no database");
    let name = later.rsplit('=').next().expect("a name");
    let old = database.url.rsplit('=').next().expect("a name");
    let admin = crate::database::connect(&database.owner_url.replace(old, "postgres")).await;
    let create = format!("CREATE DATABASE {name} TEMPLATE {old}");
    admin.batch_execute(&create).await.expect("created");
    assert_eq!(manager.told().await, "READY=1\n");
    assert_eq!(health(&config, address).await, (Some(0), String::new()), "it answers");

    let pid = nix::unistd::Pid::from_raw(child.id().expect("running").cast_signed());
    nix::sys::signal::kill(pid, Signal::SIGTERM).expect("signalled");
    assert_eq!(manager.told().await, "STOPPING=1\n");
    let exited = tokio::time::timeout(Duration::from_secs(15), child.wait()).await;
    assert_eq!(exited.expect("within the grace").expect("exited").code(), Some(0));
}
