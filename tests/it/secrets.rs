//! Nothing secret is printed: not in the log at its loudest, nor in answers, metrics, spans or the titles of processes. A whole
//! run of the program, with what goes right and with what goes wrong, is searched for every secret that it was given.

use std::{fs, path::Path, process::Stdio, time::Duration};

use approval_authority::{
    auth::tokens,
    proto::{DeleteWorkspaceRequest, GetPolicyRequest, WatchApprovalsRequest},
};
use jiff::Timestamp;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    sync::watch,
};
use tonic::{
    Code, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::{
    certificates::{Authority, Certified},
    database::Database,
    database_tls::{self, Secured},
    harness::{Caller, context, id, request},
    issuer::{Key, published},
    server::{Process, policy_text, program, tokens_text},
    telemetry::{collector::Collector, get},
};

/// The name that the service's certificate is for.
const NAME: &str = "authority.test";

/// Everything that was printed, by all commands together, and said to callers.
#[derive(Clone)]
struct Told(watch::Sender<String>);

impl Told {
    fn add(&self, text: &str) {
        self.0.send_modify(|told| told.extend([text, "\n"]));
    }

    /// All that a status says, details included.
    fn add_refusal<T: std::fmt::Debug>(&self, answer: Result<T, Status>, code: Code) {
        let status = answer.expect_err("refused");
        assert_eq!(status.code(), code, "{status:?}");
        self.add(&format!("{status:?} {}", String::from_utf8_lossy(status.details())));
    }

    /// What comes out of a stream, as it comes.
    fn follow(&self, stream: impl AsyncRead + Unpin + Send + 'static) {
        let (told, mut lines) = (self.clone(), BufReader::new(stream).lines());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                told.add(&line);
            }
        });
    }

    /// Waits until something has been printed so many times.
    async fn until(&self, words: &str, times: usize) {
        let mut told = self.0.subscribe();
        let there = told.wait_for(|told| told.matches(words).count() >= times);
        let there = tokio::time::timeout(Duration::from_secs(30), there).await;
        assert!(there.is_ok(), "{words:?} is not printed {times} times");
    }
}

/// A deployment with a secret of every kind in it.
struct Scene {
    folder: TempDir,
    database: Secured,
    authority: Authority,
    clients: Authority,
    issuer: Key,
    shown: Certified,
    told: Told,
    collector: Collector,
    /// What each secret is, and how it is written.
    secrets: Vec<(&'static str, String)>,
}

const GOOD: &str = "backend-token-for-tests";
const WRONG: &str = "aa_unknown-token-for-tests";
const RAW: &str = "aa_raw-token-for-tests-where-a-hash-belongs";
const WRONG_PASSWORD: &str = "another-password-for-tests";
const COLLECTORS: &str = "collector-token-for-tests";
const CONTEXT: &str = "what-is-written-for-tests";

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let database = Secured::new().await;
        database.show(&database.authority.certify(&[database_tls::NAME])).await;
        let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
        let (shown, issuer) = (authority.certify(&[NAME]), Key::ed());
        shown.write(folder.path());
        let write = |file: &str, text: &str| {
            fs::write(folder.path().join(file), text).expect("written");
        };
        write("clients.pem", &clients.pem());
        write("keys.json", &published(&[issuer.jwk("k")]));
        write("tokens.toml", &tokens_text());
        write("policy.toml", &policy_text());
        let url = database.trusting(database_tls::NAME, "verify-full");
        let collector = Collector::new().await;
        write(
            "approval-authority.toml",
            &format!(
                "[server]\nlisten = \"127.0.0.1:0\"\n[server.tls]\ncert = \"server.pem\"\nkey = \"server.key\"\n\
                 client_ca = \"clients.pem\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[database]\nurl = {url:?}\n[auth.tokens]\nfile = \"tokens.toml\"\n\
                 [auth.mtls]\nsubject = \"uri\"\n[auth.jwt.corp]\nissuer = \"https://corp.example\"\n\
                 audience = \"a\"\njwks = \"keys.json\"\n[policy]\nfile = \"policy.toml\"\n{}",
                collector.config()
            ),
        );
        let mut secrets = vec![
            ("a token", GOOD.to_owned()),
            ("a token that is wrong", WRONG.to_owned()),
            ("a token in a file where a hash belongs", RAW.to_owned()),
            ("the database's password", database_tls::PASSWORD.to_owned()),
            ("a password that is wrong", WRONG_PASSWORD.to_owned()),
            ("what an approval is about", CONTEXT.to_owned()),
            ("the collector's token", COLLECTORS.to_owned()),
        ];
        let lines = shown.key.lines().filter(|line| !line.starts_with("-----"));
        secrets.extend(lines.map(|line| ("the key", line.to_owned())));
        let told = Told(watch::Sender::new(String::new()));
        Self { folder, database, authority, clients, issuer, shown, told, collector, secrets }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str], file: &Path) -> Command {
        let mut command = program();
        command.args(arguments).arg(file).env("RUST_LOG", "trace").kill_on_drop(true);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    async fn run(&self, mut command: Command, succeeds: bool) {
        let output = command.output().await.expect("the program");
        for printed in [&output.stdout, &output.stderr] {
            self.told.add(&String::from_utf8_lossy(printed));
        }
        assert_eq!(
            output.status.success(),
            succeeds,
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Commands that find fault with what they are given.
    async fn faults(&self) {
        let config = self.file("approval-authority.toml");
        let wrong = self.database.trusting(database_tls::NAME, "verify-full");
        let wrong = wrong.replace(database_tls::PASSWORD, WRONG_PASSWORD);
        for (key, value) in [
            ("DATABASE__URL", wrong.clone()),
            ("DATABASE__URL", format!("{wrong} sslmode=verify-ca")),
            ("DATABASE__URL", format!("postgres://u:{WRONG_PASSWORD}@h:port/d")),
            ("SERVER__LISTEN", wrong.clone()),
            ("DATABASE__PASSWORD", WRONG_PASSWORD.to_owned()),
        ] {
            let mut command = self.command(&["migrate", "--config"], &config);
            command.env(format!("APPROVAL_AUTHORITY_{key}"), value);
            self.run(command, false).await;
        }
        for (arguments, file) in [
            (&["policy", "check"][..], "approval-authority.toml"),
            (&["policy", "check"], "server.key"),
            (&["serve", "--config"], "server.key"),
            (&["migrate", "--config"], "keys.json"),
        ] {
            self.run(self.command(arguments, &self.file(file)), false).await;
        }
        let entry = tokens::entry("ci", RAW, &[]).expect("a subject");
        let hash = entry.split('"').find(|text| text.len() == 64).expect("a hash");
        fs::write(self.file("tokens.toml"), entry.replace(hash, RAW)).expect("written");
        self.run(self.command(&["serve", "--config"], &config), false).await;
        fs::write(self.file("tokens.toml"), tokens_text()).expect("written");
    }

    async fn channel(&self, port: u16, certified: Option<&Certified>) -> Result<Channel, Status> {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.authority.pem()))
            .domain_name(NAME);
        if let Some(Certified { cert, key }) = certified {
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}"));
        let endpoint = endpoint.expect("an address").tls_config(tls).expect("certificates");
        endpoint.connect().await.map_err(|error| Status::from_error(error.into()))
    }

    /// Calls that go right, and calls that go wrong.
    async fn calls(&mut self, port: u16) {
        let plain = self.channel(port, None).await.expect("connected");
        let with = |authorization: &[u8]| {
            let value = http_value(authorization);
            Caller::over(plain.clone(), Some(value))
        };
        let backend = with(format!("Bearer {GOOD}").as_bytes());
        let alice = with(b"Bearer alice-token-for-tests");
        let mut ask = request("w1", "secret_write");
        ask.context = Some(context(&[(CONTEXT, 1.0)]));
        ask.reason = CONTEXT.to_owned();
        let held = id(&backend.ask(ask.clone()).await.expect("held"));
        alice.approve(&held).await;
        backend.ask(ask.clone()).await.expect("let through");
        let mut stream = alice.watch(WatchApprovalsRequest::default()).await.expect("a stream");
        stream.message().await.expect("a message").expect("a bookmark");
        self.told.add_refusal(alice.ask(ask.clone()).await, Code::PermissionDenied);
        let misplaced = request(GOOD, GOOD.to_uppercase().as_str());
        self.told.add_refusal(backend.ask(misplaced).await, Code::InvalidArgument);

        let claims = |seconds: i64| {
            let exp = Timestamp::now().as_second() + seconds;
            json!({"iss": "https://corp.example", "aud": "a", "sub": "alice", "exp": exp})
        };
        let good = self.issuer.token("k", &claims(60));
        let jwts = [
            self.issuer.token("k", &claims(-60)),
            self.issuer.token("another", &claims(60)),
            Key::ed().token("k", &claims(60)),
            format!("{good}="),
            good.replacen("eyJ", "e", 1),
        ];
        let answer = with(format!("Bearer {good}").as_bytes()).ask(ask.clone()).await;
        self.told.add_refusal(answer, Code::PermissionDenied);
        let refused = jwts.iter().map(|jwt| format!("Bearer {jwt}"));
        let malformed =
            [WRONG, &WRONG[..9], "aa.raw token.for-tests"].map(|it| format!("Bearer {it}"));
        let others = [format!("Basic {WRONG}"), WRONG.to_owned(), format!("Bearer{WRONG}")];
        let headers = refused.chain(malformed).chain(others).map(String::into_bytes);
        let no_text = [b"Bearer \xff", WRONG.as_bytes()].concat();
        for header in headers.chain([no_text]) {
            let answer = with(&header).approvals.get_policy(GetPolicyRequest {}).await;
            self.told.add_refusal(answer, Code::Unauthenticated);
        }
        for jwt in [good].into_iter().chain(jwts) {
            let signature = jwt.rsplit('.').next().expect("parts").trim_end_matches('=').to_owned();
            self.secrets.extend([("a JWT", jwt), ("a JWT's signature", signature)]);
        }

        // Two credentials; a certificate of nobody's; no TLS.
        let certified = self.clients.certify(&["spiffe://test/backend"]);
        let channel = self.channel(port, Some(&certified)).await.expect("connected");
        let two = Caller::over(channel, Some(http_value(format!("Bearer {GOOD}").as_bytes())));
        self.told.add_refusal(two.ask(ask.clone()).await, Code::Unauthenticated);
        let nobodys = Authority::new("nobody").certify(&["spiffe://test/backend"]);
        if let Ok(channel) = self.channel(port, Some(&nobodys)).await {
            let answer = Caller::over(channel, None).ask(ask).await;
            answer.expect_err("its handshake fails");
        }
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
        let plain = format!("GET / HTTP/1.1\r\nauthorization: Bearer {GOOD}\r\n\r\n");
        socket.write_all(plain.as_bytes()).await.expect("sent");
    }

    /// Files that change under the server, and are not good.
    async fn reloads(&self, server: Pid) {
        let stay = "policy and tokens stay as they were";
        let entry = |line: &str| format!("[[tokens]]\nsubject = \"ci\"\n{line}\n");
        let wrong = ["sha256 = \"RAW\"", "sha256 = RAW", "token = \"RAW\"", "expires = \"RAW\""];
        for (index, line) in wrong.iter().enumerate() {
            let text = entry(&line.replace("RAW", RAW));
            fs::write(self.file("tokens.toml"), text).expect("written");
            kill(server, Signal::SIGHUP).expect("signalled");
            self.told.until(stay, index + 1).await;
        }
        fs::write(self.file("tokens.toml"), tokens_text()).expect("written");
        kill(server, Signal::SIGHUP).expect("signalled");
        self.told.until("policy and tokens are read again", 1).await;
        let Certified { cert, key } = &self.shown;
        let stay = "certificates stay as they were";
        fs::write(self.file("server.key"), key.replace("PRIVATE KEY", "KEY")).expect("written");
        self.told.until(stay, 1).await;
        fs::write(self.file("server.pem"), format!("{key}{cert}{key}")).expect("written");
        self.told.until(stay, 2).await;
    }

    /// What anybody on the machine, or in the database, can see of the service while it runs.
    async fn titles(&self, server: &Child) {
        let pid = server.id().expect("running").to_string();
        let activity = "SELECT pid, application_name || ' ' || query FROM pg_stat_activity
            WHERE application_name = 'approval-authority'";
        let sessions = self.database.admin().await.query(activity, &[]).await.expect("rows");
        assert!(!sessions.is_empty(), "it has sessions");
        let mut pids = vec![pid];
        for session in sessions {
            pids.push(session.get::<_, i32>(0).to_string());
            self.told.add(session.get(1));
        }
        for pid in pids {
            for file in ["cmdline", "comm"] {
                let title = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                self.told.add(&String::from_utf8_lossy(&title));
            }
        }
    }
}

fn http_value(bytes: &[u8]) -> tonic::metadata::MetadataValue<tonic::metadata::Ascii> {
    tonic::metadata::MetadataValue::try_from(bytes).expect("a header")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_secret_is_printed_in_a_whole_run() {
    let mut scene = Scene::new().await;
    let config = scene.file("approval-authority.toml");
    scene.run(scene.command(&["migrate", "--config"], &config), true).await;
    scene.faults().await;

    let mut server = scene.command(&["serve", "--config"], &config);
    server.env("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization=Bearer%20{COLLECTORS}"));
    let mut server = server.spawn().expect("the program");
    scene.told.follow(server.stdout.take().expect("piped"));
    scene.told.follow(server.stderr.take().expect("piped"));
    scene.told.until("listening on ", 1).await;
    let port = {
        let told = scene.told.0.borrow();
        let (_, after) = told.split_once("listening on 127.0.0.1:").expect("an address");
        after.lines().next().and_then(|port| port.trim().parse().ok()).expect("a port")
    };
    let pid = Pid::from_raw(server.id().expect("running").cast_signed());
    scene.calls(port).await;
    scene.reloads(pid).await;
    scene.titles(&server).await;
    let admin = {
        let told = scene.told.0.borrow();
        let (_, after) = told.rsplit_once("readiness on http://").expect("an address");
        after.lines().next().and_then(|address| address.trim().parse().ok()).expect("an address")
    };
    scene.told.add(&get(admin, "/metrics").await.1);
    kill(pid, Signal::SIGTERM).expect("signalled");
    server.wait().await.expect("exited");
    scene.told.until("drained", 1).await;
    scene.told.add(&String::from_utf8_lossy(&scene.collector.bytes()));

    let told = scene.told.0.borrow();
    // It was loud, and said what it has to say of each of these.
    for heard in [
        "TRACE",
        "h2::",
        "approval_authority::grpc::guard",
        "refused a JWT",
        "is malformed",
        "password authentication failed",
        "sha256 must be",
        "stay as they were",
        "a connection did not come about",
        "refused a bearer token beside a client certificate",
        "is no TOML",
        "grpc_server_handled_total",
        "rpc.grpc.status_code",
    ] {
        assert!(told.contains(heard), "nothing is said of {heard:?}");
    }
    for (what, secret) in &scene.secrets {
        let lines: Vec<&str> = told.lines().filter(|line| line.contains(secret)).collect();
        assert!(lines.is_empty(), "{what} is printed: {lines:#?}");
    }
    println!("{} lines were searched for {} secrets", told.lines().count(), scene.secrets.len());
}

/// Whoever reads the log sees all of a name, and in the order in which it is written.
#[tokio::test]
async fn names_that_callers_chose_are_escaped_in_the_log() {
    let database = Database::new().await;
    let mut process = Process::serve(&database.url).await;
    let admin = process.caller("admin").await;
    let (root, leaf) = ("root\u{202e}toor", "leaf\u{200b}\u{3164}");
    admin.put_workspace(root, "").await.expect("put");
    admin.put_workspace(leaf, root).await.expect("put");
    let request = DeleteWorkspaceRequest { workspace_id: leaf.to_owned(), ..Default::default() };
    admin.workspaces.clone().delete_workspace(request).await.expect("deleted");
    let log = process.logs("workspace deleted").await.join("\n");
    for (name, times) in [("root\\u{202e}toor", 2), ("leaf\\u{200b}\\u{3164}", 2)] {
        assert_eq!(log.matches(name).count(), times, "{log}");
    }
    assert!(!log.contains(['\u{202e}', '\u{200b}', '\u{3164}']), "{log}");
}
