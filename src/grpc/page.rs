//! Page tokens: where a list goes on, bound to what was listed.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Bytes by which a token is bound to its list.
const BINDING: usize = 16;

/// A token for the page after `last`, of the list that `list` describes.
pub(super) fn token(list: &impl std::fmt::Debug, last: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode([&binding(list, last)[..], last].concat())
}

/// What `token` was given, if it is a token of this very list; none for the first page.
pub(super) fn read(list: &impl std::fmt::Debug, token: &str) -> Result<Option<Vec<u8>>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let refused = || Error::invalid("page_token", "is not one of this list");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| refused())?;
    let (bound_to, last) = bytes.split_first_chunk::<BINDING>().ok_or_else(refused)?;
    if *bound_to != binding(list, last) {
        return Err(refused());
    }
    Ok(Some(last.to_vec()))
}

/// Not a secret: it notices mistakes, and grants nothing.
fn binding(list: &impl std::fmt::Debug, last: &[u8]) -> [u8; BINDING] {
    let mut sha = Sha256::new();
    sha.update(format!("{list:?}"));
    sha.update([0]);
    sha.update(last);
    let digest: [u8; 32] = sha.finalize().into();
    let mut binding = [0; BINDING];
    binding.copy_from_slice(&digest[..BINDING]);
    binding
}

#[cfg(test)]
mod fuzz;
