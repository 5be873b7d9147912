use super::*;

mod documented;

const LEAST: &str =
    "[database]\nurl = \"postgres://u:secret@h/d\"\n[auth.tokens]\nfile = \"t.toml\"\n";

fn read(text: &str, overrides: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.toml");
    std::fs::write(&file, text).expect("written");
    let overrides = overrides.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Config::read(&file, overrides.collect())
}

#[test]
fn the_rest_has_defaults() {
    let config = read(LEAST, &[]).expect("enough");
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(config.database.pool_size, 8);
    let tokens = config.auth.tokens.expect("as in the file");
    assert!(tokens.file.is_absolute(), "relative to the file");
}

#[test]
fn unknown_keys_are_refused_and_what_is_needed_is_named() {
    assert!(read(&format!("{LEAST}[server]\nlissten = \"x\"\n"), &[]).is_err());
    let missing = read("[auth.tokens]\nfile = \"t\"\n", &[]).expect_err("no database");
    assert!(missing.contains("database"), "{missing}");
    for nobody in ["", "[auth]\n", "[auth.jwt]\n"] {
        let fault = read(&format!("[database]\nurl = \"x\"\n{nobody}"), &[]);
        assert!(fault.expect_err("nobody can call").contains("no authenticator"));
    }
}

#[test]
fn a_file_of_keys_is_found_beside_the_configuration() {
    let issuer =
        "[database]\nurl = \"x\"\n[auth.jwt.corp]\nissuer = \"https://a\"\naudience = \"b\"\n";
    let keys = |jwks: &str, overrides: &[_]| {
        let mut config = read(&format!("{issuer}jwks = \"{jwks}\"\n"), overrides)?;
        Ok::<_, String>(config.auth.jwt.remove("corp").expect("given").jwks)
    };
    assert!(matches!(keys("keys.json", &[]), Ok(JwksSource::File(file)) if file.is_absolute()));
    let elsewhere = [("AUTH__JWT__CORP__JWKS", "https://a/keys")];
    assert!(matches!(keys("keys.json", &elsewhere), Ok(JwksSource::Url(_))));
    let plaintext = keys("http://a.example/keys", &[]).expect_err("anybody's keys");
    assert!(plaintext.contains("https"), "{plaintext}");
    let unknown = read(&format!("{issuer}jwks = \"k\"\nleeway = \"1h\"\n"), &[]);
    assert!(unknown.is_err());
    let taken = format!("{issuer}jwks = \"k\"\n").replace("corp", "tokens");
    assert!(read(&taken, &[]).is_err());
}

#[test]
fn the_environment_overrides_the_file() {
    let overrides = [("SERVER__DRAIN_GRACE", "3s"), ("DATABASE__POOL_SIZE", "2")];
    let config = read(LEAST, &overrides).expect("well-formed");
    assert_eq!(config.server.drain_grace, SignedDuration::from_secs(3));
    assert_eq!(config.database.pool_size, 2);
    let unknown = read(LEAST, &[("SERVER__LISSTEN", "x")]);
    assert!(unknown.is_err());
}

#[test]
fn nothing_is_deleted_that_still_counts() {
    let days = |days: i64| SignedDuration::from_hours(24 * days);
    let kept = |text: &str| read(&format!("{LEAST}[retention]\n{text}"), &[]);
    assert_eq!(kept("").expect("defaults").retention.events, days(90));
    assert_eq!(kept("events = \"2d\"\n").expect("well-formed").retention.events, days(2));
    for wrong in ["events = \"23h\"\n", "closed_approvals = \"0s\"\n", "events = \"1y\"\n"] {
        assert!(kept(wrong).is_err(), "{wrong}");
    }
    assert!(read(&format!("{LEAST}[limits]\nwatchers = 0\n"), &[]).is_err());
}

#[test]
fn what_is_for_people_is_no_override_and_a_slip_is_refused() {
    let variable = |name: &str| override_of(OsStr::new(name), OsStr::new("x"));
    for name in FOR_PEOPLE {
        assert_eq!(variable(&format!("APPROVAL_AUTHORITY_{name}")), Ok(None));
    }
    assert_eq!(variable("PATH"), Ok(None));
    assert!(variable("APPROVAL_AUTHORITY_DATABASE__URL").is_ok_and(|found| found.is_some()));
    assert!(variable("APPROVAL_AUTHORITY_SERVER_ALLOW_PLAINTEXT").is_err());
    let no_text: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"false\xff");
    let name = OsStr::new("APPROVAL_AUTHORITY_SERVER__ALLOW_PLAINTEXT");
    assert!(override_of(name, no_text).is_err());
}

#[test]
fn a_fault_is_named_without_what_stands_there() {
    for text in [
        "[database]\nurl = \"postgres://u:secret@h/d\n",
        "database = \"postgres://u:secret@h/d\"\n[auth.tokens]\nfile = \"t\"\n",
        "[database]\nurl = [\"postgres://u:secret@h/d\"]\n[auth.tokens]\nfile = \"t\"\n",
        "[database]\nurl = \"x\"\npool_size = \"secret\"\n[auth.tokens]\nfile = \"t\"\n",
    ] {
        let fault = read(text, &[]).expect_err("a fault");
        assert!(!fault.contains("secret"), "{fault}");
    }
}

#[test]
fn plaintext_stays_on_this_machine_unless_allowed() {
    let open = format!("{LEAST}[server]\nlisten = \"0.0.0.0:50051\"\n");
    assert!(read(&open, &[]).is_err());
    assert!(read(&format!("{open}allow_plaintext = true\n"), &[]).is_ok());
}

#[test]
fn no_password_is_printed() {
    let config = read(LEAST, &[]).expect("enough");
    assert!(!format!("{config:?}").contains("secret"));
}

/// A password that was put under the wrong key, or a URL with a slip in it, is not told to whoever reads the log.
#[test]
fn no_fault_repeats_what_was_given() {
    for key in [
        "SERVER__LISTEN",
        "SERVER__ALLOW_PLAINTEXT",
        "SERVER__DRAIN_GRACE",
        "SERVER__TLS",
        "SERVER__TLS__CLIENT_CA",
        "DATABASE__POOL_SIZE",
        "DATABASE__MIGRATE_ON_START",
        "DATABASE__PASSWORD",
        "AUTH__TOKENS",
        "AUTH__MTLS__SUBJECT",
        "AUTH__JWT__CORP",
        "AUTH__JWT__CORP__JWKS",
        "POLICY",
        "LIMITS__WATCHERS",
        "RETENTION__EVENTS",
    ] {
        for value in ["s3cret", "postgres://u:s3cret@h/d", "https://u:s3cret@h/d", "-7s3cret"] {
            let fault = read(LEAST, &[(key, value)]).expect_err(key);
            assert!(!fault.contains("s3cret"), "{fault}");
        }
    }
    for line in ["url = s3cret", "url = 's3cret", "[s3cret", "pool_size = 's3cret'"] {
        let fault = read(&format!("[database]\n{line}\n"), &[]).expect_err(line);
        assert!(!fault.contains("s3cret"), "{fault}");
    }
}
