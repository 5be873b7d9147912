//! TLS to PostgreSQL: a database that can prove its name is used, and no other.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use approval_authority::{
    embedded::{Cluster, Keep},
    store::{Failure, Store, StoreConfig},
};
use tempfile::TempDir;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::{
    certificates::{Authority, Certified, expired},
    database::{cluster_folder, connect, installation, store},
    server::{Process, write_deployment},
};

/// The name that the database's certificate is for.
pub const NAME: &str = "db.test";

/// Who comes over the network comes with TLS, and with a password.
const HBA: &str = "local all all trust\nhostssl all authority 127.0.0.0/8 scram-sha-256\n";
pub const PASSWORD: &str = "password-for-tests";

/// A cluster that is reached over the network, and an authority that vouches for it.
pub struct Secured {
    cluster: Cluster,
    data: PathBuf,
    address: Ipv4Addr,
    pub authority: Authority,
    folder: TempDir,
}

impl Secured {
    /// It has no TLS as yet.
    pub async fn new() -> Self {
        // The usual port, on an address of its own: all that begin with 127 are this machine's.
        let [second, third, fourth, ..] = Uuid::new_v4().into_bytes();
        let address = Ipv4Addr::new(127, second | 1, third, fourth);
        let folder = cluster_folder();
        let listen = format!("listen_addresses={address}");
        let cluster = Cluster::start(&installation(), &folder, &[&listen], Keep::Nothing).await;
        let cluster = cluster.expect("a cluster");
        cluster.create_database("approvals").await.expect("a database");
        let (authority, data) = (Authority::new("databases"), folder.join("data"));
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("ca.pem"), authority.pem()).expect("written");
        let secured = Self { cluster, data, address, authority, folder };
        secured.write("pg_hba.conf", HBA);
        let password = format!("ALTER ROLE authority PASSWORD '{PASSWORD}'");
        secured.admin().await.batch_execute(&password).await.expect("set");
        secured
    }

    pub async fn admin(&self) -> Client {
        connect(&self.cluster.url("postgres")).await
    }

    /// Writes a file of the server's, which reads its key only if it is its own and nobody else can.
    fn write(&self, file: &str, text: &str) {
        let path = self.data.join(file);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("set");
        let owner = fs::metadata(&self.data).expect("there").uid();
        chown(&path, Some(owner), None).expect("given");
    }

    /// Has the server show a certificate, or a new one.
    pub async fn show(&self, Certified { cert, key }: &Certified) {
        self.write("server.crt", cert);
        self.write("server.key", key);
        // New sessions begin with this setting, so that they tell one reload from the next.
        let mark = Uuid::new_v4().to_string();
        let admin = self.admin().await;
        for (setting, value) in [("ssl", "on"), ("application_name", &mark)] {
            let alter = format!("ALTER SYSTEM SET {setting} = '{value}'");
            admin.batch_execute(&alter).await.expect("set");
        }
        admin.batch_execute("SELECT pg_reload_conf()").await.expect("told");
        loop {
            let session = self.admin().await.query_one("SHOW application_name", &[]).await;
            if session.expect("a row").get::<_, &str>(0) == mark {
                return;
            }
        }
    }

    /// The database by a name, with parameters.
    fn url(&self, name: &str, more: &str) -> String {
        let address = self.address;
        format!(
            "host={name} hostaddr={address} user=authority password={PASSWORD} dbname=approvals {more}"
        )
    }

    /// With the authority that vouches for it.
    pub fn trusting(&self, name: &str, mode: &str) -> String {
        let file = self.folder.path().join("ca.pem");
        self.url(name, &format!("sslmode={mode} sslrootcert={}", file.display()))
    }
}

/// Why a database is not used.
async fn refused(url: &str) -> String {
    match store(url).schema_status().await {
        Err(Failure::Unavailable(why)) => why,
        other => panic!("{url}: {other:?}"),
    }
}

fn opens(url: &str, folder: &Path) -> Result<Store, approval_authority::error::Error> {
    let folder = folder.to_owned();
    Store::new(&StoreConfig { url: url.to_owned(), notify_url: None, pool_size: 8, folder })
}

#[tokio::test]
async fn a_database_that_proves_its_name_is_used_and_no_other() {
    let secured = Secured::new().await;
    let right = secured.trusting(NAME, "verify-full");
    assert!(refused(&right).await.contains("does not support TLS"), "plaintext is not TLS");

    secured.show(&secured.authority.certify(&[NAME])).await;
    let bound = format!("{right} channel_binding=require");
    for url in [&right, &bound, &secured.trusting(NAME, "require")] {
        store(url).schema_status().await.expect("reached");
    }

    for mode in ["verify-full", "require", "prefer"] {
        let other_name = refused(&secured.trusting("other.test", mode)).await;
        assert!(other_name.contains("not valid for name"), "{other_name}");
    }
    let others = secured.folder.path().join("others.pem");
    fs::write(&others, Authority::new("databases").pem()).expect("written");
    for mode in ["verify-full", "require", "prefer"] {
        let more = format!("sslmode={mode} sslrootcert={}", others.display());
        let other_authority = refused(&secured.url(NAME, &more)).await;
        assert!(other_authority.contains("invalid peer certificate"), "{other_authority}");
    }
    // The system's authorities know nothing of it, if there are any.
    let system = secured.url(NAME, "sslmode=verify-full");
    match opens(&system, Path::new("/")) {
        Ok(_) => assert!(refused(&system).await.contains("UnknownIssuer")),
        Err(none) => assert!(format!("{none:?}").contains("system"), "{none:?}"),
    }

    secured.show(&secured.authority.certify_with(&[NAME], expired)).await;
    let expired = refused(&right).await;
    assert!(expired.contains("expired"), "{expired}");
}

#[tokio::test]
async fn a_server_works_over_tls_alone() {
    let secured = Secured::new().await;
    secured.show(&secured.authority.certify(&[NAME])).await;
    store(&secured.trusting(NAME, "verify-full")).migrate().await.expect("migrated");
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("ca.pem"), secured.authority.pem()).expect("written");
    let url = format!(
        "postgres://authority:{PASSWORD}@{NAME}/approvals?hostaddr={}&sslmode=verify-full&sslrootcert=ca.pem",
        secured.address
    );
    write_deployment(folder.path(), &url, "");
    let process = Process::of(folder).await;
    process.caller("backend").await.require("w1", "secret_write").await;
    let sessions = "SELECT count(*) FILTER (WHERE s.ssl), count(*) FILTER (WHERE NOT s.ssl)
        FROM pg_stat_ssl AS s JOIN pg_stat_activity AS a USING (pid) WHERE a.client_addr IS NOT NULL";
    let sessions = secured.admin().await.query_one(sessions, &[]).await.expect("a row");
    assert!(sessions.get::<_, i64>(0) >= 1, "over TLS");
    assert_eq!(sessions.get::<_, i64>(1), 0, "without");
}

#[test]
fn an_authority_that_cannot_be_read_is_a_fault() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = "host=db.test sslmode=verify-full sslrootcert=ca.pem";
    let fault = || format!("{:?}", opens(url, folder.path()).err().expect("a fault"));
    assert!(fault().contains("ca.pem cannot be read"), "{}", fault());
    fs::write(folder.path().join("ca.pem"), "nothing").expect("written");
    assert!(fault().contains("holds no certificate"), "{}", fault());
}
