//! Which approval a person means: by its id, or by as much of its beginning or its end as tells it apart.
//!
//! Ids begin with the time, so those of one minute look alike at first sight. The short id that is shown is the end,
//! which is random: it stays good for one approval however many come later.

use std::fmt::Write;

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    connection::Authority,
    failure::{Exit, Failure},
    lapse, shown,
};
use crate::{
    proto::{Approval, ApprovalState},
    visible::Visible,
};

/// Hexadecimal digits of a short id: two of a thousand approvals share one with a chance of one in ten thousand.
const SHORT: usize = 8;
/// With fewer, a slip of the finger too easily means another approval.
const LEAST: usize = 4;

/// The end of an id.
pub(super) fn short(id: &str) -> &str {
    id.len().checked_sub(SHORT).and_then(|at| id.get(at..)).unwrap_or(id)
}

/// What a person typed.
#[derive(Clone)]
pub(super) struct Which {
    text: String,
    /// In lower case, without dashes.
    digits: String,
}

impl Which {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let digits = text.to_ascii_lowercase().replace('-', "");
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) || digits.len() > 32 {
            return Err("is no id, nor a part of one".to_owned());
        }
        if digits.len() < LEAST {
            return Err(format!("is too short: type {LEAST} characters of the id at least"));
        }
        Ok(Self { text: text.to_owned(), digits })
    }
}

/// Does the same with each, and tells what fails; the exit code is that of the first that did.
pub(super) async fn each(
    ids: &[Which],
    act: impl AsyncFn(usize, &Which) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut first = None;
    for (index, which) in ids.iter().enumerate() {
        if let Err(failure) = act(index, which).await {
            let failure = failure.about(&which.text);
            failure.tell();
            first.get_or_insert(failure.exit);
        }
    }
    first.map_or(Ok(()), |exit| Err(Failure::told(exit)))
}

impl Authority {
    /// The id of the one approval that is meant: of those in some states, and only if none of them is, of any other.
    pub(super) async fn find(
        &self,
        which: &Which,
        states: &[ApprovalState],
    ) -> Result<String, Failure> {
        if let (32, Ok(id)) = (which.digits.len(), Uuid::parse_str(&which.digits)) {
            return Ok(id.to_string());
        }
        for states in [states, &[]] {
            let listed = self.in_states(states).await;
            let listed = listed.map_err(|failure| match failure.exit {
                Exit::Refused => Failure::new(
                    Exit::Refused,
                    "only those who may list approvals can name one by a part of its id; give all of it",
                ),
                _ => failure,
            })?;
            let matches: Vec<&Approval> =
                listed.iter().filter(|approval| is_meant(&approval.id, &which.digits)).collect();
            match matches.as_slice() {
                [] => {}
                [one] => return Ok(one.id.clone()),
                several => return Err(ambiguous(&which.text, several)),
            }
        }
        let text = &which.text;
        Err(Failure::new(
            Exit::Failure,
            format!("no approval that you may see has an id that begins or ends with {text}"),
        ))
    }
}

fn is_meant(id: &str, digits: &str) -> bool {
    let id = id.replace('-', "");
    id.starts_with(digits) || id.ends_with(digits)
}

fn ambiguous(text: &str, matches: &[&Approval]) -> Failure {
    let mut message = format!("{text} could be any of these; type more of it:");
    for approval in matches {
        let what = format!("{} in {}", approval.action, approval.workspace_id);
        let state = shown::state_name(approval.state());
        let _ = write!(message, "\n  {}  {state}  {}", approval.id, Visible(&what));
        if approval.state() == ApprovalState::Pending {
            let _ =
                write!(message, ", {} left", lapse::left(approval.expire_time, Timestamp::now()));
        }
    }
    Failure::new(Exit::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_meant_by_its_beginning_and_its_end() {
        let id = "0198c0de-0000-7abc-8def-00112233aabb";
        for text in ["0198c0de", "0198C0DE-0000-7", "0198c0de00007", short(id), "aabb", "3AABB", id]
        {
            assert!(is_meant(id, &Which::parse(text).expect("digits").digits), "{text}");
        }
        for text in ["c0de", "0198c0df", "aab0", "7abc"] {
            assert!(!is_meant(id, &Which::parse(text).expect("digits").digits), "{text}");
        }
        for text in ["", "019", "abc", "----", "xyz1", "0198c0de%", &format!("{id}0")] {
            assert!(Which::parse(text).is_err(), "{text}");
        }
        assert_eq!(short(id), "2233aabb");
    }
}
