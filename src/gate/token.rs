//! The caller's token, in a file that somebody renews while the backend runs.

use std::{
    fmt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use tonic::metadata::{Ascii, MetadataValue};

/// A bearer token, as a call carries it.
pub(super) type Credential = MetadataValue<Ascii>;

/// The file, and the last good token in it.
pub(super) struct TokenFile {
    path: PathBuf,
    last: Mutex<Credential>,
}

impl TokenFile {
    /// Reads the file; it must hold a token, and nothing but white space beside it.
    pub(super) async fn open(path: PathBuf) -> Result<Self, String> {
        let last = Mutex::new(read(&path).await?);
        Ok(Self { path, last })
    }

    /// The token in the file now: for every call, so that no call is made with one that was replaced before. While there
    /// is none to read, as in the middle of a replacement, it is the last one that was there.
    pub(super) async fn current(&self) -> Credential {
        let read = read(&self.path).await;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(token) => *last = token,
            Err(fault) => tracing::warn!(%fault, "the last token is used on"),
        }
        last.clone()
    }
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenFile({})", self.path.display())
    }
}

async fn read(path: &PathBuf) -> Result<Credential, String> {
    let text = tokio::fs::read_to_string(path).await;
    let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{} holds no token", path.display()));
    }
    let credential = format!("Bearer {token}").parse::<Credential>();
    let mut credential = credential.map_err(|_| format!("{} holds no token", path.display()))?;
    credential.set_sensitive(true);
    Ok(credential)
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
            TokenFile::open(path.clone()).await.expect_err(bad);
        }
        write("one\n");
        let file = TokenFile::open(path.clone()).await.expect("a token");
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
