//! The caller's token, mostly in a file that somebody renews while the backend runs.

use std::{
    fmt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use tonic::metadata::{Ascii, MetadataValue};

/// A bearer token, as a call carries it.
pub(super) type Credential = MetadataValue<Ascii>;

/// A token: the last good one in the file where it is renewed, if there is one.
pub(crate) struct Token {
    file: Option<PathBuf>,
    last: Mutex<Credential>,
}

impl Token {
    /// Reads a file; it must hold a token, and nothing but white space beside it.
    pub(crate) async fn open(path: PathBuf) -> Result<Self, String> {
        let last = Mutex::new(read(&path).await?);
        Ok(Self { file: Some(path), last })
    }

    /// A token that nobody renews.
    #[cfg(feature = "server")]
    pub(crate) fn fixed(text: &str) -> Option<Self> {
        Some(Self { file: None, last: Mutex::new(credential(text)?) })
    }

    /// The token in the file now: for every call, so that no call is made with one that was replaced before. While there
    /// is none to read, as in the middle of a replacement, it is the last one that was there.
    pub(super) async fn current(&self) -> Credential {
        let read = match &self.file {
            Some(path) => Some(read(path).await),
            None => None,
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Some(Ok(token)) => *last = token,
            Some(Err(fault)) => tracing::warn!(%fault, "the last token is used on"),
            None => {}
        }
        last.clone()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("file", &self.file).finish_non_exhaustive()
    }
}

async fn read(path: &PathBuf) -> Result<Credential, String> {
    let text = tokio::fs::read_to_string(path).await;
    let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
    credential(&text).ok_or_else(|| format!("{} holds no token", path.display()))
}

fn credential(text: &str) -> Option<Credential> {
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let mut credential = format!("Bearer {token}").parse::<Credential>().ok()?;
    credential.set_sensitive(true);
    Some(credential)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_file_is_followed_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let write = |text: &str| std::fs::write(&path, text).expect("written");
        for bad in ["", " \n", "two words", "t\u{e9}"] {
            write(bad);
            Token::open(path.clone()).await.expect_err(bad);
        }
        write("one\n");
        let file = Token::open(path.clone()).await.expect("a token");
        assert_eq!(file.current().await, "Bearer one");
        write("two");
        assert_eq!(file.current().await, "Bearer two");
        write("");
        assert_eq!(file.current().await, "Bearer two");
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(file.current().await, "Bearer two");
        assert!(!format!("{file:?}").contains("two"));
    }
}
