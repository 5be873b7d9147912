//! `dev`: everything on this machine, to try it.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use nix::unistd::geteuid;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use super::serve::{prepare, stop_signal, store};
use crate::{
    admin::Admin,
    auth::tokens,
    config::{
        self, AdminConfig, AuthConfig, Config, DatabaseConfig, LimitsConfig, LogConfig,
        PolicyConfig, RetentionConfig, ServerConfig, TelemetryConfig, TokensConfig,
        default_data_dir, program_folders,
    },
    embedded::{Cluster, Installation, Keep},
    policy::file::BUILT_IN,
    store::role::ROLE,
};

/// The service's login in the database.
const SERVICE: &str = "service";
/// The backend that asks.
const BACKEND: &str = "workspace-server";
/// The person who decides.
const PERSON: &str = "alice";
/// Another, for what takes two.
const SECOND: &str = "bob";
/// Who may decide.
const APPROVERS: &str = "approvers";

/// The operation that the lines to paste ask for.
const ASK: &str =
    r#"{"workspace_id":"w1","action":"delete_workspace","reason":"nobody has used it since May"}"#;
const GATE: &str = "approvals.v1.ApprovalService/RequireApproval";

/// Arguments of `dev`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Where the database, the tokens and the policy are kept [default: a folder of this user's].
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Where to listen; port 0 for any that is free.
    #[arg(long, default_value = "127.0.0.1:50051")]
    listen: SocketAddr,
}

pub(super) async fn run(arguments: Arguments) -> Result<()> {
    if !arguments.listen.ip().is_loopback() {
        bail!("dev listens on loopback only; {} is not", arguments.listen);
    }
    let (stop, mut hangup) = (stop_signal()?, signal(SignalKind::hangup())?);
    // Its terminal is closed: nobody is there to stop it.
    let stop = async {
        tokio::select! {
            () = stop => {}
            _ = hangup.recv() => {}
        }
    };
    let folder = std::path::absolute(arguments.data_dir.unwrap_or_else(default_data_dir))?;
    let _lock = lock(&folder)?;
    let tokens = credentials(&folder)?;
    let policy = policy(&folder)?;

    let (pg_bin, path) = program_folders();
    let installation = Installation::find(pg_bin, &path)?;
    let postgres = folder.join("postgres");
    let cluster = Cluster::start(&installation, &postgres, &[], Keep::Data).await?;
    cluster.create_database("approvals").await?;

    let mut config = Config {
        server: ServerConfig { listen: arguments.listen, ..ServerConfig::default() },
        admin: AdminConfig { listen: None },
        log: LogConfig::default(),
        telemetry: TelemetryConfig::default(),
        database: DatabaseConfig {
            url: cluster.url("approvals"),
            notify_url: String::new(),
            url_file: None,
            notify_url_file: None,
            pool_size: 8,
            migrate_on_start: false,
            folder: folder.clone(),
        },
        auth: AuthConfig {
            tokens: Some(TokensConfig { file: tokens.file.clone() }),
            ..AuthConfig::default()
        },
        policy: PolicyConfig { file: Some(policy) },
        limits: LimitsConfig::default(),
        retention: RetentionConfig::default(),
    };
    // The owner makes the schema; the service works as one that cannot change it.
    store(&config)?.migrate().await?;
    cluster.add_login(SERVICE, ROLE).await?;
    config.database.url = cluster.url_as(SERVICE, "approvals");
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    let server = prepare(&config, Admin::default()).await?;
    welcome(listener.local_addr()?, &folder, &tokens);
    server.run(listener, stop).await?;
    cluster.stop();
    Ok(())
}

/// The tokens of the first two, and the file that names them all.
struct Credentials {
    file: PathBuf,
    backend: String,
    person: String,
}

/// Makes the folder ours, and ours alone: two programs would take the database from each other.
fn lock(folder: &Path) -> Result<File> {
    if !folder.exists() {
        // The server's user passes through to its own part, which is closed to others, as the secrets are.
        fs::DirBuilder::new().recursive(true).mode(0o711).create(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o711))?;
    }
    let about = fs::symlink_metadata(folder)?;
    let ours = about.is_dir() && about.uid() == geteuid().as_raw();
    if !ours || about.mode() & 0o022 != 0 {
        bail!(
            "{} must be a folder that belongs to you and that nobody else can write to",
            folder.display()
        );
    }
    let mut options = OpenOptions::new();
    let lock =
        options.write(true).create(true).truncate(false).mode(0o600).open(folder.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => bail!("another dev is using {}", folder.display()),
        Err(fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

fn credentials(folder: &Path) -> Result<Credentials> {
    let file = folder.join("tokens.toml");
    let (backend, person) = (secret_file(folder, BACKEND), secret_file(folder, PERSON));
    if !file.exists() {
        let mut entries = Vec::new();
        for (subject, groups) in
            [(BACKEND, &[][..]), (PERSON, &[APPROVERS]), (SECOND, &[APPROVERS])]
        {
            let token = tokens::new_token();
            write_private(&secret_file(folder, subject), &token)?;
            entries.push(tokens::entry(subject, &token, groups).map_err(|why| anyhow!(why))?);
        }
        write_private(&file, &entries.join("\n"))?;
    }
    let read = |path: &Path| -> Result<String> {
        let token = fs::read_to_string(path);
        Ok(token.with_context(|| format!("cannot read {}", path.display()))?.trim().to_owned())
    };
    Ok(Credentials { backend: read(&backend)?, person: read(&person)?, file })
}

fn secret_file(folder: &Path, subject: &str) -> PathBuf {
    folder.join(format!("{subject}.token"))
}

/// Writes what only we may read, or change.
fn write_private(path: &Path, text: &str) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    writeln!(file, "{text}")?;
    Ok(())
}

/// The built-in policy and who may do what, in a file that can be edited.
fn policy(folder: &Path) -> Result<PathBuf> {
    let file = folder.join("policy.toml");
    if !file.exists() {
        let bindings = format!(
            "\n[[bindings]]\nrole = \"requester\"\nprincipals = [\"tokens:{BACKEND}\"]\n\
             namespaces = [\"*\"]\nworkspaces = [\"*\"]\n\
             \n[[bindings]]\nrole = \"approver\"\ngroups = [\"tokens:{APPROVERS}\"]\n\
             namespaces = [\"*\"]\nworkspaces = [\"*\"]\nactions = [\"*\"]\n\
             \n[[bindings]]\nrole = \"admin\"\ngroups = [\"tokens:{APPROVERS}\"]\n\
             namespaces = [\"*\"]\nworkspaces = [\"*\"]\n"
        );
        write_private(&file, &format!("{BUILT_IN}{bindings}"))?;
    }
    Ok(file)
}

/// What to do next, in lines to paste: those of the README.
fn welcome(address: SocketAddr, folder: &Path, tokens: &Credentials) {
    let Credentials { backend, person, .. } = tokens;
    println!(
        r#"listening on {address}
data in {folder}

In another terminal, the credentials of the backend and of the person who decides:

export BACKEND={backend}
export PERSON={person}

The backend asks and is held, the person approves, the backend asks again and is let through, once:

ID=$(grpcurl -plaintext -expand-headers -H 'authorization: Bearer ${{BACKEND}}' -d '{ASK}' {address} {GATE} | tee /dev/stderr | sed -n 's/^ *"id": "\(.*\)",$/\1/p')
grpcurl -plaintext -expand-headers -H 'authorization: Bearer ${{PERSON}}' -d "{{\"approval_id\":\"$ID\",\"decision\":\"DECISION_APPROVE\"}}" {address} approvals.v1.ApprovalService/Decide
grpcurl -plaintext -expand-headers -H 'authorization: Bearer ${{BACKEND}}' -d '{ASK}' {address} {GATE}

What happens, as it happens:

grpcurl -plaintext -expand-headers -H 'authorization: Bearer ${{PERSON}}' -d '{{"start":"START_OLDEST"}}' {address} approvals.v1.ApprovalService/WatchApprovals

Or decide with this program, which shows what it is that you approve:

export APPROVAL_AUTHORITY_SERVER={address} APPROVAL_AUTHORITY_TOKEN_FILE={token}
{program} pending
{program} approve ID

Tokens in files, for that and for a gate of yours: {files}; org_token_mint takes both people.

Ctrl-C stops it; the data stays."#,
        folder = folder.display(),
        token = secret_file(folder, PERSON).display(),
        program = config::program().display(),
        files = [BACKEND, PERSON, SECOND].map(|of| format!("{of}.token")).join(", "),
    );
}
