//! What starts and watches the service: health for containers, word to a service manager.

use std::{
    net::SocketAddr, os::unix::net::UnixDatagram, path::Path, process::Stdio, time::Duration,
};

use approval_authority::proto::Outcome;
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::{net::TcpListener, process::Child};

use crate::{
    certificates::{Authority, expired},
    database::Database,
    harness::{Caller, id},
    server::{Process, log_of, program, start, tokens_text, until, write_deployment},
    telemetry::get,
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

/// A copy of a folder of deploy/, and the variables that its file of that name gives the program.
fn deployed(file: &str, folder: &str) -> (TempDir, Vec<String>) {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let copy = tempfile::tempdir().expect("a folder");
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(deploy.join(folder).join("."))
        .arg(copy.path())
        .status();
    assert!(copied.expect("cp").success());
    let text = std::fs::read_to_string(deploy.join(file)).expect("text");
    let mut names: Vec<_> = text
        .split(|one: char| !(one.is_ascii_alphanumeric() || one == '_'))
        .filter(|word| word.starts_with("APPROVAL_AUTHORITY_"))
        .map(str::to_owned)
        .collect();
    names.dedup();
    assert_eq!(names, ["APPROVAL_AUTHORITY_DATABASE__URL_FILE"], "{file}: give it a value below");
    (copy, names)
}

/// `serve` with the configuration in a folder, that of the deployment, as it says but for where things are.
async fn serve_as_deployed(
    config: &Path,
    url: &Path,
    variables: &[String],
    places: &[(&str, &Path)],
) -> (Child, SocketAddr, SocketAddr) {
    let (address, admin) = (free_port().await, free_port().await);
    let mut command = program();
    command.arg("serve").current_dir(config).stdout(Stdio::piped());
    command.envs(variables.iter().map(|name| (name, url)));
    command.env("APPROVAL_AUTHORITY_SERVER__LISTEN", address.to_string());
    command.env("APPROVAL_AUTHORITY_ADMIN__LISTEN", admin.to_string());
    command.envs(places.iter().map(|(key, path)| (format!("APPROVAL_AUTHORITY_{key}"), path)));
    let (child, address) = start(command).await;
    (child, address, admin)
}

#[tokio::test]
async fn what_compose_deploys_is_asked_and_decides_with_the_tokens_that_were_made() {
    let database = Database::new().await;
    let (folder, variables) = deployed("compose.yaml", "compose");
    let _ = std::fs::remove_dir_all(folder.path().join("secrets"));
    let _ = std::fs::remove_file(folder.path().join("config/tokens.toml"));
    let make = || std::process::Command::new(folder.path().join("make-secrets")).output();
    let made = make().expect("a script");
    assert!(made.status.success(), "{made:?}");
    assert!(!make().expect("a script").status.success(), "what is in use stays");
    let made = String::from_utf8(made.stdout).expect("text");
    let token = |name: &str| {
        let line = made.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
        line.expect("printed").to_owned()
    };
    let url = folder.path().join("url");
    std::fs::write(&url, &database.url).expect("written");
    let config = folder.path().join("config");
    let (_child, address, _) = serve_as_deployed(&config, &url, &variables, &[]).await;
    let backend = Caller::with_token(address, &token("BACKEND")).await;
    let held = backend.require("w1", "delete_workspace").await;
    assert_eq!(held.outcome(), Outcome::Pending);
    Caller::with_token(address, &token("PERSON")).await.approve(&id(&held)).await;
    assert_eq!(backend.require("w1", "delete_workspace").await.outcome(), Outcome::Approved);

    let owner = std::fs::read_to_string(folder.path().join("secrets/owner_url")).expect("a URL");
    let roles = std::fs::read_to_string(folder.path().join("secrets/roles.sql")).expect("SQL");
    let password = owner.split([':', '@']).nth(2).expect("a password");
    assert!(roles.contains(&format!("ROLE owner LOGIN PASSWORD '{password}'")));
}

#[tokio::test]
async fn what_kubernetes_deploys_serves_with_the_files_of_its_secrets() {
    let database = Database::new().await;
    let (folder, variables) = deployed("kubernetes/deployment.yaml", "kubernetes");
    Authority::new("theirs").certify(&["authority.test"]).write(folder.path());
    let file = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("written");
        folder.path().join(name)
    };
    let (url, tokens) = (file("url", &database.url), file("tokens.toml", &tokens_text()));
    let (cert, key) = (folder.path().join("server.pem"), folder.path().join("server.key"));
    let places = [
        ("SERVER__TLS__CERT", cert.as_path()),
        ("SERVER__TLS__KEY", &key),
        ("AUTH__TOKENS__FILE", &tokens),
    ];
    // Its configuration names the folders that the pods have them in.
    let text = std::fs::read_to_string(folder.path().join("approval-authority.toml"));
    let text = text.expect("text");
    let pods = include_str!("../../deploy/kubernetes/deployment.yaml");
    for place in ["/run/tls", "/run/tokens"] {
        assert!(text.contains(place) && pods.contains(&format!("mountPath: {place}\n")), "{place}");
    }
    let (_child, _, admin) = serve_as_deployed(folder.path(), &url, &variables, &places).await;
    for path in ["/readyz", "/livez"] {
        assert!(pods.contains(&format!("path: {path}\n              port: admin\n")), "{path}");
        // It listens a moment before it is ready.
        let good = async {
            while get(admin, path).await.0 != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), good).await.expect(path);
    }
    assert!(text.contains("listen = \"0.0.0.0:9464\"") && pods.contains("containerPort: 9464\n"));
}

#[tokio::test]
async fn the_job_of_kubernetes_migrates() {
    let database = Database::new().await;
    let (folder, variables) = deployed("kubernetes/migrate/job.yaml", "kubernetes/migrate");
    let drop = "DROP SCHEMA approval_authority CASCADE";
    database.connect().await.batch_execute(drop).await.expect("dropped");
    let url = folder.path().join("url");
    std::fs::write(&url, &database.owner_url).expect("written");
    let mut migrate = program();
    migrate.arg("migrate").current_dir(folder.path()).env(&variables[0], &url);
    let migrated = migrate.output().await.expect("the program");
    assert!(migrated.status.success(), "{migrated:?}");
}
