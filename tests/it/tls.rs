//! TLS and client certificates: who gets through a handshake, whom a certificate speaks for, and what becomes of both when the
//! files change.

use std::{net::SocketAddr, process::Stdio, sync::Arc, time::Duration};

use approval_authority::proto::WatchApprovalsRequest;
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::{
    Code, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::{
    certificates::{Authority, Certified, ending_in, expired, for_servers, not_yet},
    database::Database,
    harness::{Caller, refusal, request},
    server::{Process, policy_text, program, write_deployment},
};

/// The name that the server's certificate is for.
const NAME: &str = "authority.test";

/// A client that the policy lets ask, by its URI and by its DNS name, and one that it does not know.
const BACKEND: &str = "spiffe://test/backend";
const BACKEND_DNS: &str = "backend.test";
const STRANGER: &str = "spiffe://test/stranger";

/// Longer than anything here takes, the patience with handshakes included.
const PATIENCE: Duration = Duration::from_secs(60);

/// Logged when the files have changed and are good, and when they are not.
const READ_AGAIN: &str = "certificates are read again";
const STAY: &str = "certificates stay as they were";

fn mtls(subject: &str) -> String {
    format!(
        "[server.tls]\ncert = \"server.pem\"\nkey = \"server.key\"\nclient_ca = \"clients.pem\"\n\
         [auth.mtls]\nsubject = \"{subject}\"\n"
    )
}

/// A server that speaks TLS, and the authorities of its own certificate and of its callers'.
struct Secured {
    process: Process,
    authority: Authority,
    clients: Authority,
    _database: Database,
}

impl Secured {
    async fn new(subject: &str) -> Self {
        let database = Database::new().await;
        let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
        let folder = deployment(&database, &mtls(subject));
        authority.certify(&[NAME]).write(folder.path());
        std::fs::write(folder.path().join("clients.pem"), clients.pem()).expect("written");
        let process = Process::of(folder).await;
        Self { process, authority, clients, _database: database }
    }

    /// Makes calls with a client certificate, with a bearer token, with both or with neither.
    async fn ask(&self, shown: Option<&Certified>, token: Option<&str>) -> Result<(), Status> {
        let channel = channel(self.process.address, &self.authority, shown).await?;
        ask(channel, token).await
    }

    /// How a caller is refused by the service: its code and its reason.
    async fn refused(&self, shown: Option<&Certified>, token: Option<&str>) -> (Code, String) {
        refusal(&self.ask(shown, token).await.expect_err("refused"))
    }
}

fn deployment(database: &Database, more: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    write_deployment(folder.path(), &database.url, more);
    let binding = format!(
        "\n[[bindings]]\nrole = \"requester\"\n\
         principals = [\"mtls:{BACKEND}\", \"mtls:{BACKEND_DNS}\"]\nworkspaces = [\"*\"]\n\
         \n[[bindings]]\nrole = \"viewer\"\nprincipals = [\"mtls:{BACKEND}\"]\nworkspaces = [\"*\"]\n"
    );
    std::fs::write(folder.path().join("policy.toml"), policy_text() + &binding).expect("written");
    folder
}

async fn channel(
    address: SocketAddr,
    authority: &Authority,
    shown: Option<&Certified>,
) -> Result<Channel, Status> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority.pem()))
        .domain_name(NAME);
    if let Some(Certified { cert, key }) = shown {
        tls = tls.identity(Identity::from_pem(cert, key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("an address");
    let connected = endpoint.tls_config(tls).expect("well-formed").connect().await;
    connected.map_err(|error| Status::from_error(Box::new(error)))
}

async fn ask(channel: Channel, token: Option<&str>) -> Result<(), Status> {
    let token = token.map(|token| format!("Bearer {token}").parse().expect("ASCII"));
    let answer = Caller::over(channel, token).ask(request("w1", "secret_write")).await;
    answer.map(|_| ())
}

/// No call has come as far as the service, which gives a reason with every status.
fn assert_kept_out(asked: Result<(), Status>, who: &str) {
    let refused = asked.expect_err(who);
    assert_eq!(refusal(&refused).1, "", "{who}: {refused:?}");
    assert_ne!(refused.code(), Code::Unauthenticated, "{who}");
}

const TOKEN: Option<&str> = Some("backend-token-for-tests");

fn unauthenticated() -> (Code, String) {
    (Code::Unauthenticated, "UNAUTHENTICATED".to_owned())
}

fn role_missing() -> (Code, String) {
    (Code::PermissionDenied, "ROLE_MISSING".to_owned())
}

#[tokio::test]
async fn callers_with_a_token_come_over_tls_and_plaintext_is_refused() {
    let secured = Secured::new("uri").await;
    let address = secured.process.address;
    secured.ask(None, TOKEN).await.expect("let in");
    assert_eq!(secured.refused(None, None).await, unauthenticated());

    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let plain = match endpoint.connect().await {
        Ok(channel) => ask(channel, TOKEN).await,
        Err(error) => Err(Status::from_error(Box::new(error))),
    };
    assert_kept_out(plain, "plaintext");
    // A caller that would trust another authority only does not take this server for it.
    let other = channel(address, &Authority::new("others"), None).await;
    assert_kept_out(other.map(|_| ()), "another authority's name");
}

/// A client that offers some protocols, and remembers its sessions.
fn client(authority: &Authority, protocols: &[&str]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(authority.pem().as_bytes());
    roots.add(authority.expect("a certificate")).expect("an authority");
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("known")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// How a client begins in HTTP/2, with no settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// How a handshake went, if the server speaks HTTP/2 after it, which begins with its settings.
async fn spoken(client: &TlsConnector, address: SocketAddr) -> Option<HandshakeKind> {
    let socket = TcpStream::connect(address).await.expect("there");
    let name = ServerName::try_from(NAME).expect("a name");
    let mut stream = client.connect(name, socket).await.ok()?;
    stream.write_all(PREFACE).await.ok()?;
    let read = timeout(PATIENCE, stream.read_u8()).await.expect("an answer or an end");
    read.ok().and_then(|_| stream.get_ref().1.handshake_kind())
}

#[tokio::test]
async fn only_http_2_is_spoken_and_no_session_is_resumed() {
    let secured = Secured::new("uri").await;
    let address = secured.process.address;
    for protocols in [&["h2"][..], &["http/1.1", "h2"]] {
        let client = client(&secured.authority, protocols);
        for _ in 0..2 {
            assert_eq!(spoken(&client, address).await, Some(HandshakeKind::Full), "{protocols:?}");
        }
    }
    for protocols in [&["http/1.1"][..], &[]] {
        let client = client(&secured.authority, protocols);
        assert_eq!(spoken(&client, address).await, None, "{protocols:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_good_is_refused_in_the_handshake() {
    let secured = Secured::new("uri").await;
    let (clients, names) = (&secured.clients, &[BACKEND]);
    secured.ask(Some(&clients.certify(names)), None).await.expect("a good one is let in");
    for (who, shown) in [
        ("another authority's", Authority::new("clients").certify(names)),
        ("the server's own authority's", secured.authority.certify(names)),
        ("expired", clients.certify_with(names, expired)),
        ("not yet valid", clients.certify_with(names, not_yet)),
        ("for servers", clients.certify_with(names, for_servers)),
    ] {
        // Neither taken nor overlooked.
        assert_kept_out(secured.ask(Some(&shown), None).await, who);
        assert_kept_out(secured.ask(Some(&shown), TOKEN).await, who);
    }
}

#[tokio::test]
async fn a_certificate_speaks_for_the_one_uri_in_it() {
    let secured = Secured::new("uri").await;
    let certify = |names: &[&str]| secured.clients.certify(names);
    for named in [&[BACKEND][..], &[BACKEND_DNS, BACKEND]] {
        secured.ask(Some(&certify(named)), None).await.expect("bound");
    }
    assert_eq!(secured.refused(Some(&certify(&[STRANGER])), None).await, role_missing());
    for nobody in [&[][..], &[BACKEND_DNS], &[BACKEND, STRANGER], &[BACKEND, BACKEND]] {
        let shown = certify(nobody);
        assert_eq!(secured.refused(Some(&shown), None).await, unauthenticated(), "{nobody:?}");
        // It is no credential, so there is one, and not two.
        secured.ask(Some(&shown), TOKEN).await.expect("let in by the token");
    }
}

#[tokio::test]
async fn a_certificate_speaks_for_the_one_dns_name_in_it() {
    let secured = Secured::new("dns").await;
    let certify = |names: &[&str]| secured.clients.certify(names);
    for named in [&[BACKEND_DNS][..], &["Backend.TEST"], &[BACKEND_DNS, BACKEND, STRANGER]] {
        secured.ask(Some(&certify(named)), None).await.expect("bound");
    }
    assert_eq!(secured.refused(Some(&certify(&["stranger.test"])), None).await, role_missing());
    for nobody in [&[][..], &[BACKEND], &[BACKEND_DNS, "other.test"], &["*.test"]] {
        let shown = certify(nobody);
        assert_eq!(secured.refused(Some(&shown), None).await, unauthenticated(), "{nobody:?}");
    }
}

#[tokio::test]
async fn two_credentials_are_refused() {
    let secured = Secured::new("uri").await;
    let backend = secured.clients.certify(&[BACKEND]);
    let stranger = secured.clients.certify(&[STRANGER]);
    for (shown, token) in [
        (&backend, TOKEN),
        (&stranger, TOKEN),
        (&backend, Some("a-token-that-nobody-knows")),
        (&backend, Some("")),
    ] {
        assert_eq!(secured.refused(Some(shown), token).await, unauthenticated());
    }
}

#[tokio::test]
async fn a_stream_ends_with_the_certificate_that_opened_it() {
    let secured = Secured::new("uri").await;
    let short = ending_in(Duration::from_secs(6));
    let shown = secured.clients.certify_with(&[BACKEND], short);
    let channel = channel(secured.process.address, &secured.authority, Some(&shown)).await;
    let caller = Caller::over(channel.expect("good as yet"), None);
    let mut stream = caller.watch(WatchApprovalsRequest::default()).await.expect("a stream");
    stream.message().await.expect("a message").expect("a bookmark");
    // Not only when rights are looked at for other reasons, which is once a minute.
    let ended = timeout(Duration::from_secs(45), async {
        loop {
            match stream.message().await {
                Ok(message) => assert!(message.is_some(), "it ends with a status"),
                Err(ended) => break ended,
            }
        }
    });
    let ended = ended.await.expect("it ends");
    assert_eq!(refusal(&ended), unauthenticated());
    // On the connection on which it was good.
    let refused = caller.ask(request("w1", "secret_write")).await.expect_err("expired");
    assert_eq!(refusal(&refused), unauthenticated());
}

#[tokio::test]
async fn new_files_are_shown_to_new_connections_and_bad_ones_are_not() {
    let mut secured = Secured::new("uri").await;
    let address = secured.process.address;
    let before = channel(address, &secured.authority, None).await.expect("connected");
    ask(before.clone(), TOKEN).await.expect("let in");

    let (next, next_clients) = (Authority::new("next servers"), Authority::new("next clients"));
    next.certify(&[NAME]).write(secured.process.file("").as_path());
    secured.process.logs(READ_AGAIN).await;
    let shown = channel(address, &next, None).await.expect("the new one is shown");
    ask(shown, TOKEN).await.expect("let in");
    assert_kept_out(secured.ask(None, TOKEN).await, "who trusts the old one");
    ask(before, TOKEN).await.expect("the connection goes on");

    let bad = Authority::new("bad").certify(&[NAME]);
    for (file, text) in [
        ("server.key", bad.key.as_str()),
        ("server.key", "no key"),
        ("server.pem", "no certificate"),
        ("server.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("clients.pem", ""),
    ] {
        let good = std::fs::read_to_string(secured.process.file(file)).expect("text");
        secured.process.write(file, text);
        let log = secured.process.logs(STAY).await;
        assert!(!log.iter().any(|line| line.contains(READ_AGAIN)), "{log:#?}");
        let shown = channel(address, &next, None).await.expect("as it was");
        ask(shown, TOKEN).await.expect("let in");
        secured.process.write(file, &good);
        secured.process.logs(READ_AGAIN).await;
    }
    std::fs::remove_file(secured.process.file("server.pem")).expect("removed");
    let log = secured.process.logs(STAY).await;
    assert!(log.iter().any(|line| line.contains("server.pem cannot be read")), "{log:#?}");
    channel(address, &next, None).await.expect("as it was");
    next.certify(&[NAME]).write(secured.process.file("").as_path());
    secured.process.logs(READ_AGAIN).await;

    // Whose certificates are taken is read again, too.
    secured.authority = next;
    let (old, new) = (secured.clients.certify(&[BACKEND]), next_clients.certify(&[BACKEND]));
    secured.ask(Some(&old), None).await.expect("as yet");
    assert_kept_out(secured.ask(Some(&new), None).await, "not yet trusted");
    secured.process.write("clients.pem", &next_clients.pem());
    secured.process.logs(READ_AGAIN).await;
    secured.ask(Some(&new), None).await.expect("trusted");
    assert_kept_out(secured.ask(Some(&old), None).await, "trusted no more");
}

#[tokio::test]
async fn who_does_not_finish_the_handshake_keeps_nobody_out_and_is_shown_the_door() {
    let secured = Secured::new("uri").await;
    let mut silent = Vec::new();
    for number in 0..100 {
        let mut socket = TcpStream::connect(secured.process.address).await.expect("accepted");
        if number % 2 == 1 {
            // A handshake that begins, says how much will follow, and stops there.
            socket.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.expect("written");
        }
        silent.push(socket);
    }
    let asked = timeout(PATIENCE, secured.ask(None, TOKEN)).await;
    asked.expect("nobody is kept out").expect("let in");
    // They were there all the time.
    for socket in &silent {
        let nothing = socket.try_read(&mut [0]).expect_err("neither an answer nor an end");
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    }
    for mut socket in silent {
        let end = timeout(PATIENCE, socket.read(&mut [0])).await.expect("it is closed");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
}

/// Handshakes take seats as connections do: those that come to nothing give way.
#[tokio::test]
async fn handshakes_are_bounded_and_who_does_not_finish_theirs_gives_way() {
    const SEATS: usize = 20;
    let database = Database::new().await;
    let authority = Authority::new("servers");
    let tls = "[server.tls]\ncert = \"server.pem\"\nkey = \"server.key\"\n";
    let folder = deployment(&database, &format!("{tls}[limits]\nconnections = {SEATS}\n"));
    authority.certify(&[NAME]).write(folder.path());
    let process = Process::of(folder).await;
    let mut silent = Vec::new();
    for _ in 0..5 * SEATS {
        silent.push(TcpStream::connect(process.address).await.expect("accepted"));
    }
    let channel = channel(process.address, &authority, None).await.expect("let in");
    ask(channel, TOKEN).await.expect("let in");
    let open = silent.iter().filter(|socket| is_open(socket)).count();
    assert!(open < SEATS, "{open} of them have a seat");
}

/// Whether a socket on which nothing is ever said has not been closed.
fn is_open(socket: &TcpStream) -> bool {
    matches!(socket.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test]
async fn it_does_not_start_with_files_that_do_not_fit_together() {
    let database = Database::new().await;
    let folder = deployment(&database, &mtls("uri"));
    let authority = Authority::new("servers");
    let refuses = async || {
        let mut command = program();
        command.arg("serve").arg("--config").arg(folder.path().join("approval-authority.toml"));
        let output = command.stderr(Stdio::piped()).output().await.expect("the program");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("text")
    };
    assert!(refuses().await.contains("server.pem cannot be read"));
    authority.certify(&[NAME]).write(folder.path());
    assert!(refuses().await.contains("clients.pem cannot be read"));
    std::fs::write(folder.path().join("clients.pem"), authority.pem()).expect("written");
    let other = authority.certify(&[NAME]);
    std::fs::write(folder.path().join("server.key"), other.key).expect("written");
    assert!(refuses().await.contains("do not fit together"));
}
