//! `token new`: a credential, printed once.

use anyhow::{Result, anyhow, bail};

use crate::auth::tokens;

pub(super) fn new(subject: &str, groups: &[String]) -> Result<()> {
    for name in [subject].into_iter().chain(groups.iter().map(String::as_str)) {
        if name.is_empty() {
            bail!("a name must not be empty");
        }
        if let Some(bare) = name.strip_prefix("tokens:") {
            bail!("{name:?}: leave \"tokens:\" away, as in {bare:?}");
        }
    }
    let token = tokens::new_token();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let entry = tokens::entry(subject, &token, &groups).map_err(|why| anyhow!(why))?;
    println!("{token}\n");
    println!("# It is not shown again. Its entry for tokens.toml, which holds no secret:\n");
    print!("{entry}");
    Ok(())
}
