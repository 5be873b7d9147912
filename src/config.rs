//! The configuration file and the environment. The only code that reads the environment.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, de::Error};

pub use self::jwt::{JwksSource, JwtConfig};
use crate::duration;

mod database;
mod jwt;
mod tls;

pub use database::DatabaseConfig;
pub use tls::{MtlsConfig, TlsConfig};

/// Begins the environment variables that override keys of the file.
const PREFIX: &str = "APPROVAL_AUTHORITY_";

/// What is a day old still counts: recent denials, and attempts that repeat their call.
const LEAST_RETENTION: SignedDuration = SignedDuration::from_hours(24);

/// Variables with the same beginning that are for the commands of people, and no keys: see [`ForPeople`].
const FOR_PEOPLE: [&str; 5] = ["SERVER", "NAMESPACE", "TOKEN", "TOKEN_FILE", "CA"];

/// A deployment. Every key has a default except `database.url` (or `database.url_file`) and those of at least one authenticator; unknown keys
/// are refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How callers reach the server.
    #[serde(default)]
    pub server: ServerConfig,
    /// How those who run it look at it.
    #[serde(default)]
    pub admin: AdminConfig,
    /// How it tells what it does.
    #[serde(default)]
    pub log: LogConfig,
    /// Who else hears of it.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
    /// Where the database is.
    pub database: DatabaseConfig,
    /// Who callers are.
    #[serde(default)]
    pub auth: AuthConfig,
    /// What is gated, and who may do what.
    #[serde(default)]
    pub policy: PolicyConfig,
    /// How much one server takes on.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// How long what is over is kept.
    #[serde(default)]
    pub retention: RetentionConfig,
}

/// `[server]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Where to listen; port 0 for any that is free.
    pub listen: SocketAddr,
    /// Whether plaintext is allowed on an address that is not loopback, as where a mesh does TLS.
    pub allow_plaintext: bool,
    /// What the server shows its callers; unset: it speaks plaintext.
    pub tls: Option<TlsConfig>,
    /// Whether gRPC reflection is offered.
    pub reflection: bool,
    /// How long calls in progress may take once the server drains.
    #[serde(deserialize_with = "duration::deserialize")]
    pub drain_grace: SignedDuration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50051)),
            allow_plaintext: false,
            tls: None,
            reflection: true,
            drain_grace: SignedDuration::from_secs(10),
        }
    }
}

/// `[admin]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Where to listen for `/metrics`, `/livez` and `/readyz`; "" for nowhere, and port 0 for any that is free.
    #[serde(deserialize_with = "address_or_none")]
    pub listen: Option<SocketAddr>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from(([127, 0, 0, 1], 9464))) }
    }
}

/// `[log]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// For whom it is written.
    pub format: LogFormat,
}

/// For whom the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// People.
    #[default]
    Human,
    /// Programs: a JSON object on each line.
    Json,
}

/// `[telemetry]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// The collector that spans are sent to, over OTLP on gRPC; unset: none are made.
    pub otlp_endpoint: Option<String>,
}

impl TelemetryConfig {
    fn check(&self) -> Result<(), String> {
        match &self.otlp_endpoint {
            Some(url) if !url.starts_with("http://") && !url.starts_with("https://") => {
                Err("telemetry.otlp_endpoint must begin with http:// or https://".to_owned())
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn address_or_none<'de, D: Deserializer<'de>>(value: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(value)?;
    match text.as_str() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| Error::custom("admin.listen is no address")),
    }
}

/// `[auth]`: at least one authenticator.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// Random tokens, by hash.
    pub tokens: Option<TokensConfig>,
    /// Issuers of JWTs, by the name that prefixes their principals.
    pub jwt: BTreeMap<String, JwtConfig>,
    /// Client certificates.
    pub mtls: Option<MtlsConfig>,
}

/// `[auth.tokens]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokensConfig {
    /// `tokens.toml`
    pub file: PathBuf,
}

/// `[policy]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// `policy.toml`; unset: the built-in policy, which binds nobody.
    pub file: Option<PathBuf>,
}

/// `[limits]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Connections at once.
    pub connections: usize,
    /// Calls in progress at once, but for those that wait or watch.
    pub calls: usize,
    /// Of those, one principal's.
    pub calls_per_principal: usize,
    /// Calls at once that wait for a decision.
    pub waiters: usize,
    /// Of those, one principal's.
    pub waiters_per_principal: usize,
    /// Streams of `WatchApprovals` at once.
    pub watchers: usize,
    /// Of those, one principal's.
    pub watchers_per_principal: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections: 10_000,
            calls: 4_000,
            calls_per_principal: 1_000,
            waiters: 10_000,
            waiters_per_principal: 1_000,
            watchers: 10_000,
            watchers_per_principal: 100,
        }
    }
}

impl LimitsConfig {
    fn check(&self) -> Result<(), String> {
        for (key, most) in [
            ("connections", self.connections),
            ("calls", self.calls),
            ("calls_per_principal", self.calls_per_principal),
            ("waiters", self.waiters),
            ("waiters_per_principal", self.waiters_per_principal),
            ("watchers", self.watchers),
            ("watchers_per_principal", self.watchers_per_principal),
        ] {
            if most == 0 {
                return Err(format!("limits.{key} must be at least 1"));
            }
        }
        Ok(())
    }
}

/// `[retention]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// Of closed approvals.
    #[serde(deserialize_with = "duration::deserialize")]
    pub closed_approvals: SignedDuration,
    /// Of events.
    #[serde(deserialize_with = "duration::deserialize")]
    pub events: SignedDuration,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        let ninety_days = SignedDuration::from_hours(90 * 24);
        Self { closed_approvals: ninety_days, events: ninety_days }
    }
}

impl Config {
    /// Reads a file, with the environment's overrides: `APPROVAL_AUTHORITY_DATABASE__URL` for `database.url`.
    /// Paths in it are relative to it.
    pub fn load(file: &Path) -> Result<Self, String> {
        let mut overrides = Vec::new();
        for (name, value) in env::vars_os() {
            overrides.extend(override_of(&name, &value)?);
        }
        Self::read(file, overrides)
    }

    fn read(file: &Path, mut overrides: Vec<(String, String)>) -> Result<Self, String> {
        database::override_in_pairs(&mut overrides);
        let environment = config::Environment::default()
            .separator("__")
            .try_parsing(true)
            .source(Some(overrides.into_iter().collect()));
        let mut read: Self = config::Config::builder()
            .add_source(config::File::from(file).format(config::FileFormat::Toml))
            .add_source(environment)
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(|error| format!("{}: {}", file.display(), describe(&error, file)))?;
        let folder = file.parent().unwrap_or(Path::new("."));
        if let Some(tokens) = &mut read.auth.tokens {
            tokens.file = folder.join(&tokens.file);
        }
        for issuer in read.auth.jwt.values_mut() {
            issuer.jwks.make_relative_to(folder);
        }
        read.server.tls = read.server.tls.map(|tls| tls.below(folder));
        read.database =
            read.database.below(folder).map_err(|why| format!("{}: {why}", file.display()))?;
        read.policy.file = read.policy.file.map(|policy| folder.join(policy));
        read.check().map_err(|why| format!("{}: {why}", file.display()))?;
        Ok(read)
    }

    fn check(&self) -> Result<(), String> {
        let ServerConfig { listen, allow_plaintext, tls, drain_grace, .. } = &self.server;
        if tls.is_none() && !listen.ip().is_loopback() && !allow_plaintext {
            return Err(format!(
                "server.listen = {listen} would take tokens in plaintext from the network; \
                 set server.tls, or server.allow_plaintext = true where something else does TLS"
            ));
        }
        if self.auth.tokens.is_none() && self.auth.mtls.is_none() && self.auth.jwt.is_empty() {
            return Err(
                "auth names no authenticator: set auth.tokens, auth.mtls or an auth.jwt.NAME"
                    .to_owned(),
            );
        }
        if self.auth.mtls.is_some() && tls.as_ref().is_none_or(|tls| tls.client_ca.is_none()) {
            return Err(
                "auth.mtls needs server.tls.client_ca, which verifies certificates".to_owned()
            );
        }
        if drain_grace.is_negative() {
            return Err("server.drain_grace must not be negative".to_owned());
        }
        if self.database.pool_size == 0 {
            return Err("database.pool_size must be at least 1".to_owned());
        }
        jwt::check(&self.auth.jwt)?;
        let RetentionConfig { closed_approvals, events } = self.retention;
        for (key, kept) in [("closed_approvals", closed_approvals), ("events", events)] {
            if kept < LEAST_RETENTION {
                return Err(format!("retention.{key} must be at least a day"));
            }
        }
        self.telemetry.check()?;
        self.limits.check()
    }
}

/// An override, if an environment variable is one. Every key lies in a table, so its variable has the
/// separator; those without it are meant for the commands that people use. A variable that would be one but for
/// a slip is refused: whoever set it believes that it holds.
fn override_of(name: &OsStr, value: &OsStr) -> Result<Option<(String, String)>, String> {
    let Some(key) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
        return Ok(None);
    };
    if FOR_PEOPLE.contains(&key) {
        return Ok(None);
    }
    if !key.contains("__") {
        return Err(format!(
            "{PREFIX}{key} is no key; its table and its name are parted by \"__\""
        ));
    }
    match value.to_str() {
        Some(value) => Ok(Some((key.to_owned(), value.to_owned()))),
        None => Err(format!("{PREFIX}{key} is not UTF-8")),
    }
}

/// What is wrong, and where, without what stands there: it may be a password.
fn describe(error: &config::ConfigError, file: &Path) -> String {
    match error {
        config::ConfigError::FileParse { .. } => {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            match toml::from_str::<toml::Table>(&text) {
                Ok(_) => "cannot be read".to_owned(),
                Err(fault) => {
                    let offset = fault.span().map_or(0, |span| span.start);
                    let line = text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
                    format!("line {line} is no TOML")
                }
            }
        }
        config::ConfigError::Type { expected, key, .. } => {
            format!("{} must be {expected}", key.as_deref().unwrap_or("a key"))
        }
        config::ConfigError::At { error, key, .. } => {
            format!("{}: {}", key.as_deref().unwrap_or("a key"), describe(error, file))
        }
        config::ConfigError::NotFound(key) => format!("{key} is missing"),
        // What the deserialiser says: it quotes a value only to say that its type is wrong.
        other => match other.to_string().split_once("invalid type:") {
            Some((key, why)) => {
                let expected = why.rsplit(", expected ").next().unwrap_or("something else");
                format!("{key}must be {expected}")
            }
            None => other.to_string(),
        },
    }
}

/// What the environment says to the commands of people. An empty variable says nothing.
pub struct ForPeople {
    /// `APPROVAL_AUTHORITY_SERVER`
    pub server: Option<String>,
    /// `APPROVAL_AUTHORITY_NAMESPACE`
    pub namespace: Option<String>,
    /// `APPROVAL_AUTHORITY_TOKEN`
    pub token: Option<String>,
    /// `APPROVAL_AUTHORITY_TOKEN_FILE`
    pub token_file: Option<PathBuf>,
    /// `APPROVAL_AUTHORITY_CA`
    pub ca: Option<PathBuf>,
}

impl ForPeople {
    /// Reads it; the error names a variable that is no text.
    pub fn read() -> Result<Self, String> {
        let [server, namespace, token, token_file, ca] = FOR_PEOPLE.map(|name| {
            let name = format!("{PREFIX}{name}");
            match env::var(&name) {
                Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
                Err(env::VarError::NotPresent) => Ok(None),
                Err(env::VarError::NotUnicode(_)) => Err(format!("{name} is not UTF-8")),
            }
        });
        let path = |value: Option<String>| value.map(PathBuf::from);
        Ok(Self {
            server: server?,
            namespace: namespace?,
            token: token?,
            token_file: path(token_file?),
            ca: path(ca?),
        })
    }
}

/// Where this program is, for lines to paste.
pub fn program() -> PathBuf {
    env::current_exe().unwrap_or_else(|_| PathBuf::from("approval-authority"))
}

/// Where to look for the programs of PostgreSQL: the folder that `PG_BIN` names, if it is set, and the folders
/// of the PATH.
pub fn program_folders() -> (Option<PathBuf>, Vec<PathBuf>) {
    let path = env::var_os("PATH").map(|path| env::split_paths(&path).collect());
    (env::var_os("PG_BIN").map(PathBuf::from), path.unwrap_or_default())
}

/// Where `dev` keeps its data unless told otherwise. Root's server runs as another user, who may not enter
/// root's home.
pub fn default_data_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/approval-authority-dev");
    }
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let data = env::var_os("XDG_DATA_HOME").map(PathBuf::from).or_else(home);
    data.unwrap_or_else(|| PathBuf::from(".")).join("approval-authority-dev")
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
