//! `token new`: a credential, printed once.

use anyhow::{Result, anyhow};

use crate::auth::tokens;

pub(super) fn new(subject: &str) -> Result<()> {
    let token = tokens::new_token();
    let entry = tokens::entry(subject, &token, &[]).map_err(|why| anyhow!("{subject:?} {why}"))?;
    println!("{token}\n");
    println!("# It is not shown again. Its entry for tokens.toml, which holds no secret:\n");
    print!("{entry}");
    Ok(())
}
