//! A private PostgreSQL, for `dev` and the tests: an installed server on a data directory of our own, reached
//! by a unix socket and by nothing else.

use std::{
    fs,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};
use nix::unistd::{Uid, User, geteuid};
use tokio_postgres::NoTls;

/// Longest path of a server's folder: the path of the socket in it must fit into the 108 bytes of `sockaddr_un`.
const FOLDER: usize = 78;

/// How long the server may take to start, recovery after a kill included.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// The superuser of the private server.
const SUPERUSER: &str = "authority";

/// Makes the data, whole or not at all: what is half made, because we were killed, must not be taken for data.
/// Arguments: the programs' folder, ours, the superuser.
const INITIALISE: &str = r#"
umask 077
rm -rf "$2/data.new"
"$1/initdb" -D "$2/data.new" -U "$3" --auth-local=trust --auth-host=reject \
    --encoding=UTF8 --locale=C --no-instructions && mv "$2/data.new" "$2/data"
"#;

/// Runs the server until its standard input ends, which it does when the process that holds the other end
/// dies, however it dies; then shuts the server down, and removes its folder if the third argument says so.
/// The other arguments are the server's. It never listens but on its socket: the settings are on its command
/// line, and not in a file that it might not find.
const SUPERVISE: &str = r#"
umask 077
programs=$1 folder=$2 afterwards=$3
shift 3
mkdir -p "$folder/socket" && chmod 700 "$folder/socket"
"$programs/postgres" -D "$folder/data" -c listen_addresses= -c unix_socket_permissions=0700 \
    -c unix_socket_directories="$folder/socket" "$@" </dev/null >"$folder/postgres.log" 2>&1 &
read -r _
kill -INT $! 2>/dev/null
wait $!
[ "$afterwards" = keep ] || rm -rf "$folder"
"#;

/// The programs of an installed PostgreSQL.
#[derive(Clone, Debug)]
pub struct Installation {
    bin: PathBuf,
}

impl Installation {
    /// Looks for one: where it is said to be (`PG_BIN`), where `pg_config` says, in the usual places, on the
    /// PATH.
    pub fn find(said: Option<PathBuf>, path: &[PathBuf]) -> Result<Self> {
        if let Some(bin) = said {
            if !has_programs(&bin) {
                bail!("PG_BIN is {}, and there is no initdb and postgres there", bin.display());
            }
            return Ok(Self { bin });
        }
        let mut candidates: Vec<PathBuf> = pg_config().into_iter().collect();
        for usual in ["/usr/lib/postgresql", "/usr/local/lib/postgresql", "/opt/homebrew/opt"] {
            let mut versions: Vec<PathBuf> = fs::read_dir(usual)
                .map(|entries| entries.flatten().map(|e| e.path().join("bin")).collect())
                .unwrap_or_default();
            versions.sort();
            candidates.extend(versions.into_iter().rev());
        }
        candidates.extend(["/usr/local/pgsql/bin", "/usr/pgsql/bin"].map(PathBuf::from));
        candidates.extend(path.iter().cloned());
        match candidates.into_iter().find(|bin| has_programs(bin)) {
            Some(bin) => Ok(Self { bin }),
            None => bail!(
                "no PostgreSQL server was found; install one (apt-get install postgresql) or set PG_BIN \
                 to the folder that holds initdb and postgres"
            ),
        }
    }

    /// The folder with its programs.
    pub fn bin(&self) -> &Path {
        &self.bin
    }
}

fn has_programs(bin: &Path) -> bool {
    ["initdb", "postgres", "pg_ctl"].iter().all(|program| bin.join(program).exists())
}

fn pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let bin = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(bin.trim()))
}

/// What becomes of a server's folder when it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It stays, to be started again.
    Data,
    /// It is removed.
    Nothing,
}

/// A running server. It stops when this is dropped, and when this process dies, even by SIGKILL.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    supervisor: Child,
}

impl Cluster {
    /// Starts the server of a folder; makes its data first if there is none. `settings` are `name=value`.
    ///
    /// The folder is given to the server's user. Where that is another than ours, nothing in it is written,
    /// made or removed but by processes of that user: as root we would follow whatever links it lays.
    pub async fn start(
        installation: &Installation,
        folder: &Path,
        settings: &[&str],
        keep: Keep,
    ) -> Result<Self> {
        let owner = owner()?;
        prepare(folder, owner.as_ref())?;
        let data = folder.join("data");
        if data.join("PG_VERSION").exists() {
            stop_leftover(installation, &data, owner.as_ref())?;
        } else {
            initialise(installation, folder, owner.as_ref())?;
        }
        let mut command = Command::new("sh");
        command.args(["-c", SUPERVISE, "sh"]).arg(&installation.bin).arg(folder);
        command.arg(match keep {
            Keep::Data => "keep",
            Keep::Nothing => "remove",
        });
        command.args(settings.iter().flat_map(|setting| ["-c", setting]));
        // A group of its own: Ctrl-C is for us, and we stop the server once we have drained.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        run_as(&mut command, owner.as_ref());
        let supervisor = command.spawn().context("cannot start the PostgreSQL server")?;
        let mut cluster = Self { folder: folder.to_owned(), supervisor };
        cluster.wait_until_ready().await?;
        Ok(cluster)
    }

    /// How to connect to one of its databases, as its owner.
    pub fn url(&self, database: &str) -> String {
        self.url_as(SUPERUSER, database)
    }

    /// The same, as a login of [`add_login`](Self::add_login)'s.
    pub fn url_as(&self, login: &str, database: &str) -> String {
        let socket = self.folder.join("socket");
        format!("host='{}' user={login} dbname={database}", socket.display())
    }

    /// Makes a login, unless it is there, and has it do what a role may.
    pub async fn add_login(&self, login: &str, role: &str) -> Result<()> {
        let known = "SELECT 1 FROM pg_catalog.pg_roles AS r WHERE r.rolname = $1";
        let create = format!("CREATE ROLE {login} LOGIN IN ROLE {role}");
        self.create_unless(known, login, &create).await
    }

    /// The server's process; none while it starts or after it was killed.
    pub fn pid(&self) -> Option<i32> {
        let file = fs::read_to_string(self.folder.join("data/postmaster.pid")).ok()?;
        file.lines().next()?.parse().ok()
    }

    /// Creates a database unless it is there.
    pub async fn create_database(&self, database: &str) -> Result<()> {
        let known = "SELECT 1 FROM pg_catalog.pg_database AS d WHERE d.datname = $1";
        self.create_unless(known, database, &format!("CREATE DATABASE {database}")).await
    }

    async fn create_unless(&self, known: &str, name: &str, create: &str) -> Result<()> {
        let (client, driver) = tokio_postgres::connect(&self.url("postgres"), NoTls).await?;
        let driver = tokio::spawn(driver);
        if client.query_opt(known, &[&name]).await?.is_none() {
            client.batch_execute(create).await?;
        }
        drop(client);
        Ok(driver.await??)
    }

    /// Stops the server and waits until it has.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.supervisor.stdin.take());
        if let Err(error) = self.supervisor.wait() {
            tracing::warn!(%error, "the PostgreSQL server was not seen to stop");
        }
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let started = SystemTime::now();
        let until = Instant::now() + START_PATIENCE;
        loop {
            match tokio_postgres::connect(&self.url("postgres"), NoTls).await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > until || self.has_given_up(started) => {
                    let log = fs::read_to_string(self.log()).unwrap_or_default();
                    bail!("the PostgreSQL server did not start: {error}\n{}", log.trim_end());
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Whether the server has said why it does not start, and left. What an earlier one said does not count.
    fn has_given_up(&self, started: SystemTime) -> bool {
        let written = fs::metadata(self.log()).and_then(|about| about.modified());
        if !written.is_ok_and(|written| written > started) {
            return false;
        }
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        log.contains("FATAL:") && !log.contains("starting up") && self.pid().is_none()
    }

    fn log(&self) -> PathBuf {
        self.folder.join("postgres.log")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whom the server runs as: itself refuses to run as root.
fn owner() -> Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Some(user) = User::from_name(name)? {
            return Ok(Some(user));
        }
    }
    bail!("PostgreSQL does not run as root, and there is no user postgres or nobody")
}

fn run_as(command: &mut Command, owner: Option<&User>) {
    // Its own working directory may be one that the user cannot enter.
    command.current_dir("/");
    if let Some(user) = owner {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
}

/// Makes the folder, for the server's user alone.
fn prepare(folder: &Path, owner: Option<&User>) -> Result<()> {
    if !folder.is_absolute() || folder.as_os_str().len() > FOLDER {
        bail!(
            "{} must be an absolute path of at most {FOLDER} bytes, for the socket in it",
            folder.display()
        );
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    if let Some(user) = owner {
        chown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    }
    let own = owner.map_or(geteuid(), |user| user.uid);
    for ancestor in folder.ancestors().skip(1) {
        let about = fs::metadata(ancestor)?;
        let enters = about.mode() & 0o001 != 0 || Uid::from_raw(about.uid()) == own;
        if owner.is_some() && !enters {
            bail!(
                "the PostgreSQL server's user cannot enter {}; choose another folder",
                ancestor.display()
            );
        }
    }
    Ok(())
}

fn initialise(installation: &Installation, folder: &Path, owner: Option<&User>) -> Result<()> {
    let mut command = Command::new("sh");
    command.args(["-c", INITIALISE, "sh"]).arg(&installation.bin).arg(folder).arg(SUPERUSER);
    run_as(&mut command, owner);
    let output = command.output().context("cannot run initdb")?;
    if !output.status.success() {
        bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}

/// A server that outlived us, or is still shutting down because we were killed, must be gone before another
/// starts on its data.
fn stop_leftover(installation: &Installation, data: &Path, owner: Option<&User>) -> Result<()> {
    let pg_ctl = |arguments: &[&str]| {
        let mut command = Command::new(installation.bin.join("pg_ctl"));
        command.arg("-D").arg(data).args(arguments);
        run_as(&mut command, owner);
        command.output().context("cannot run pg_ctl")
    };
    if pg_ctl(&["status"])?.status.success() {
        let stopped = pg_ctl(&["stop", "-m", "fast", "-w"])?;
        if !stopped.status.success() && pg_ctl(&["status"])?.status.success() {
            bail!("a server is still running on {}", data.display());
        }
    }
    Ok(())
}
