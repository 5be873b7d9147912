//! Cursors: a place in one history of one namespace's log, in a form that clients store and give back.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    error::Error,
    names::Namespace,
    store::{Store, events::Position, log::Log},
};

/// The form of what follows; another form gets another number.
const FORMAT: u8 = 1;

/// Bytes of checksum: what was cut off or altered on the way is told apart from another history.
const CHECKSUM: usize = 4;

/// A position that a subscriber has reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The organisation whose log it is in.
    pub namespace: Namespace,
    /// The history of that log.
    pub epoch: Uuid,
    /// Everything up to here has been dealt with.
    pub revision: i64,
    /// The tag of the event there; 0 before the first.
    pub tag: i64,
}

impl Cursor {
    /// After everything that a log holds.
    pub fn at_end(namespace: &Namespace, log: &Log) -> Self {
        let Position { revision, tag } = log.end();
        Self { namespace: namespace.clone(), epoch: log.epoch, revision, tag }
    }

    /// base64url (RFC 4648 section 5) of the format, the epoch, the revision, the tag, the namespace and a
    /// checksum.
    pub fn encode(&self) -> String {
        let mut bytes = vec![FORMAT];
        bytes.extend(self.epoch.as_bytes());
        bytes.extend(self.revision.to_be_bytes());
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend(self.namespace.as_str().as_bytes());
        bytes.extend(checksum(&bytes));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a cursor of this namespace; anything else is [`Error::CursorInvalid`].
    pub fn decode(text: &str, namespace: &Namespace) -> Result<Self, Error> {
        let cursor = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| parse(&bytes));
        cursor.filter(|cursor| cursor.namespace == *namespace).ok_or(Error::CursorInvalid)
    }

    /// This place in the log as it is now, if the log goes on from here.
    ///
    /// [`Error::CursorExpired`] when retention has removed what follows, [`Error::HistoryChanged`] when the
    /// log is another, has lost its tail, or holds another event at this place.
    pub async fn check(self, store: &Store) -> Result<Self, Error> {
        let (log, tag_there) = store.locate(&self.namespace, self.revision).await?;
        self.check_against(&log, tag_there)?;
        Ok(Self { epoch: log.epoch, ..self })
    }

    /// The place itself.
    pub fn position(&self) -> Position {
        Position { revision: self.revision, tag: self.tag }
    }

    fn check_against(&self, log: &Log, tag_there: Option<i64>) -> Result<(), Error> {
        if self.epoch == Log::NONE.epoch && self.revision == 0 {
            // It was given out before the log began, and so before its first event.
            return if log.floor == 0 { Ok(()) } else { Err(Error::CursorExpired) };
        }
        if self.epoch != log.epoch || self.revision > log.head || self.revision < 0 {
            return Err(Error::HistoryChanged);
        }
        if self.revision < log.floor {
            return Err(Error::CursorExpired);
        }
        let expected = if self.revision == log.floor { Some(log.floor_tag) } else { tag_there };
        if expected != Some(self.tag) {
            return Err(Error::HistoryChanged);
        }
        Ok(())
    }
}

fn parse(bytes: &[u8]) -> Option<Cursor> {
    let (content, sum) = bytes.split_last_chunk::<CHECKSUM>()?;
    if checksum(content) != *sum {
        return None;
    }
    let (&[FORMAT], rest) = content.split_first_chunk::<1>()? else {
        return None;
    };
    let (epoch, rest) = rest.split_first_chunk::<16>()?;
    let (revision, rest) = rest.split_first_chunk::<8>()?;
    let (tag, namespace) = rest.split_first_chunk::<8>()?;
    Some(Cursor {
        namespace: Namespace::parse(std::str::from_utf8(namespace).ok()?).ok()?,
        epoch: Uuid::from_bytes(*epoch),
        revision: i64::from_be_bytes(*revision),
        tag: i64::from_be_bytes(*tag),
    })
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let digest = Sha256::digest(bytes);
    [digest[0], digest[1], digest[2], digest[3]]
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;

    fn cursor() -> Cursor {
        Cursor {
            namespace: Namespace::parse("acme").expect("well-formed"),
            epoch: Uuid::from_u128(7),
            revision: 10,
            tag: -5,
        }
    }

    fn log() -> Log {
        Log { epoch: Uuid::from_u128(7), floor: 4, floor_tag: 44, head: 12, head_tag: 1 }
    }

    #[test]
    fn what_is_encoded_is_read_back() {
        assert_eq!(Cursor::decode(&cursor().encode(), &cursor().namespace), Ok(cursor()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let text = cursor().encode();
        let bytes = URL_SAFE_NO_PAD.decode(&text).expect("own encoding");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let text = URL_SAFE_NO_PAD.encode(flipped);
            assert_eq!(Cursor::decode(&text, &cursor().namespace), Err(Error::CursorInvalid));
        }
        for length in 0..text.len() {
            let cut = &text[..length];
            assert_eq!(Cursor::decode(cut, &cursor().namespace), Err(Error::CursorInvalid));
        }
    }

    #[test]
    fn a_cursor_opens_nothing_in_another_namespace() {
        let other = Namespace::parse("globex").expect("well-formed");
        assert_eq!(Cursor::decode(&cursor().encode(), &other), Err(Error::CursorInvalid));
    }

    #[test]
    fn a_place_that_is_gone_or_was_never_there_is_told_apart() {
        let at = |revision, tag| Cursor { revision, tag, ..cursor() };
        assert_eq!(at(10, -5).check_against(&log(), Some(-5)), Ok(()));
        assert_eq!(at(10, -5).check_against(&log(), Some(6)), Err(Error::HistoryChanged));
        assert_eq!(at(13, -5).check_against(&log(), None), Err(Error::HistoryChanged));
        assert_eq!(at(3, -5).check_against(&log(), None), Err(Error::CursorExpired));
        assert_eq!(at(4, 44).check_against(&log(), None), Ok(()));
        assert_eq!(at(4, 45).check_against(&log(), None), Err(Error::HistoryChanged));
        let other = Cursor { epoch: Uuid::from_u128(8), ..cursor() };
        assert_eq!(other.check_against(&log(), Some(-5)), Err(Error::HistoryChanged));
    }
}
