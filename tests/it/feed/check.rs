//! What a recorded stream must be, whatever happened while it was recorded.

use std::collections::{BTreeMap, BTreeSet};

use approval_authority::proto::{
    EventType, WatchApprovalsResponse, watch_approvals_response::Message,
};

use crate::database::Database;

/// What is wrong with what a subscriber was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// An event that was sent before, or should have been sent earlier.
    Back { after: i64, revision: i64 },
    /// Events between these two were not sent.
    Gap { after: i64, revision: i64 },
    /// A bookmark said that nothing more comes up to here; this event came.
    BookmarkAhead { bookmark: i64, revision: i64 },
    /// A bookmark of where the stream had been before.
    BookmarkBack { after: i64, bookmark: i64 },
    /// A message that should have a cursor has none, or the other way round.
    Cursor { revision: i64 },
    /// Two cursors of one place, or one of two.
    CursorsDiffer { revision: i64 },
    /// A pending approval after the bookmark that ends them.
    PendingLate,
    /// It is in the log and was not sent, or not like this.
    Missing(Entry),
    /// It was sent and is not in the log, or not like this.
    Unknown(Entry),
    /// A stream that was resumed after this place is not the one that went on there.
    ResumedElsewhere { after: i64 },
}

/// What tells one event from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub revision: i64,
    pub kind: EventType,
    pub workspace: String,
    pub approval: String,
    pub version: i32,
}

/// Whether a stream was asked for all events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    All,
    Some,
}

/// What a response stands for: the revision that its cursor is of.
fn place(response: &WatchApprovalsResponse) -> Option<i64> {
    match response.message.as_ref().expect("a message") {
        Message::Event(event) => Some(event.revision),
        Message::Bookmark(bookmark) => Some(bookmark.revision),
        Message::PendingApproval(_) => None,
    }
}

/// The events of a history.
pub fn entries(history: &[WatchApprovalsResponse]) -> Vec<Entry> {
    let events = history.iter().filter_map(super::event);
    let entries = events.map(|event| {
        let approval = event.approval.as_ref().expect("an approval");
        Entry {
            revision: event.revision,
            kind: event.r#type(),
            workspace: event.workspace_id.clone(),
            approval: approval.id.clone(),
            version: approval.version,
        }
    });
    entries.collect()
}

/// Checks the messages of one subscriber, in one stream or in several, each resumed where the one before ended.
pub fn check_stream(history: &[WatchApprovalsResponse], asked: Asked) -> Vec<Violation> {
    let mut violations = Vec::new();
    let (mut last_event, mut reached) = (None, None);
    let mut pending_is_over = false;
    for response in history {
        match response.message.as_ref().expect("a message") {
            Message::Event(event) => {
                let revision = event.revision;
                match (last_event, reached) {
                    (Some(after), _) if revision <= after => {
                        violations.push(Violation::Back { after, revision });
                    }
                    (_, Some(bookmark)) if revision <= bookmark => {
                        violations.push(Violation::BookmarkAhead { bookmark, revision });
                    }
                    (_, Some(after)) if asked == Asked::All && revision > after + 1 => {
                        violations.push(Violation::Gap { after, revision });
                    }
                    _ => {}
                }
                last_event = last_event.max(Some(revision));
                reached = reached.max(Some(revision));
            }
            Message::Bookmark(mark) => {
                let bookmark = mark.revision;
                match reached {
                    Some(after) if bookmark < after => {
                        violations.push(Violation::BookmarkBack { after, bookmark });
                    }
                    Some(after) if asked == Asked::All && bookmark > after => {
                        violations.push(Violation::BookmarkAhead { bookmark, revision: after + 1 });
                    }
                    _ => {}
                }
                reached = reached.max(Some(bookmark));
                pending_is_over |= mark.pending_complete;
            }
            Message::PendingApproval(_) if pending_is_over => {
                violations.push(Violation::PendingLate);
            }
            Message::PendingApproval(_) => {}
        }
    }
    violations.extend(check_cursors(history));
    violations
}

/// A cursor is of one place and a place has one cursor.
fn check_cursors(history: &[WatchApprovalsResponse]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut cursors: BTreeMap<i64, &str> = BTreeMap::new();
    let mut places: BTreeMap<&str, i64> = BTreeMap::new();
    for response in history {
        let (cursor, place) = (response.cursor.as_str(), place(response));
        if cursor.is_empty() != place.is_none() {
            violations.push(Violation::Cursor { revision: place.unwrap_or_default() });
        }
        let Some(revision) = place else { continue };
        if *cursors.entry(revision).or_insert(cursor) != cursor
            || *places.entry(cursor).or_insert(revision) != revision
        {
            violations.push(Violation::CursorsDiffer { revision });
        }
    }
    violations
}

/// Checks that what was sent is exactly what is in the log.
pub fn check_log(history: &[WatchApprovalsResponse], log: &[Entry]) -> Vec<Violation> {
    let sent: BTreeSet<Entry> = entries(history).into_iter().collect();
    let logged: BTreeSet<Entry> = log.iter().cloned().collect();
    let missing = logged.difference(&sent).cloned().map(Violation::Missing);
    missing.chain(sent.difference(&logged).cloned().map(Violation::Unknown)).collect()
}

/// Checks the beginning of a stream that was resumed with the cursor of one message of a history.
pub fn check_resumed(
    history: &[WatchApprovalsResponse],
    at: usize,
    resumed: &[WatchApprovalsResponse],
) -> Vec<Violation> {
    let after = place(&history[at]).unwrap_or_default();
    let expected = entries(&history[at + 1..]);
    let mark = resumed.first().map(|first| (place(first), first.cursor.as_str()));
    if mark == Some((Some(after), history[at].cursor.as_str()))
        && expected.starts_with(&entries(resumed))
    {
        vec![]
    } else {
        vec![Violation::ResumedElsewhere { after }]
    }
}

/// The log as it is in the table.
pub async fn log(url: &str) -> Vec<Entry> {
    let read = "SELECT revision, type, workspace_id, approval_id::text, version
        FROM approval_authority.events WHERE namespace = 'default' ORDER BY revision";
    let database = Database { url: url.to_owned() };
    let rows = database.connect().await.query(read, &[]).await.expect("the log");
    let entries = rows.iter().map(|row| {
        let kind = format!("EVENT_TYPE_{}", row.get::<_, &str>(1));
        Entry {
            revision: row.get(0),
            kind: EventType::from_str_name(&kind).expect("a type"),
            workspace: row.get(2),
            approval: row.get(3),
            version: row.get(4),
        }
    });
    entries.collect()
}

mod tests {
    //! Each fault that a stream could have is found in one that has it, and in no other.

    use approval_authority::proto::{Approval, ApprovalEvent, Bookmark};

    use super::*;

    fn sent(revision: i64) -> WatchApprovalsResponse {
        let approval =
            Some(Approval { id: format!("a{revision}"), version: 1, ..Default::default() });
        let kind = EventType::Requested.into();
        let event = ApprovalEvent { revision, r#type: kind, approval, ..Default::default() };
        let message = Some(Message::Event(event));
        WatchApprovalsResponse { message, cursor: format!("c{revision}") }
    }

    fn marked(revision: i64) -> WatchApprovalsResponse {
        let message = Some(Message::Bookmark(Bookmark { revision, pending_complete: false }));
        WatchApprovalsResponse { message, cursor: format!("c{revision}") }
    }

    /// Events 3 to 8, with a bookmark in front and one in the middle.
    fn whole() -> Vec<WatchApprovalsResponse> {
        vec![marked(2), sent(3), sent(4), sent(5), marked(5), sent(6), sent(7), sent(8)]
    }

    fn found(history: &[WatchApprovalsResponse]) -> Vec<Violation> {
        check_stream(history, Asked::All)
    }

    #[test]
    fn what_is_whole_has_no_fault() {
        assert_eq!(found(&whole()), []);
        assert_eq!(check_log(&whole(), &entries(&whole())), []);
        let filtered = [marked(2), sent(4), marked(6), sent(8), marked(8)];
        assert_eq!(check_stream(&filtered, Asked::Some), []);
        for at in 0..whole().len() - 1 {
            let place = place(&whole()[at]).expect("a place");
            let mut resumed = vec![marked(place)];
            resumed.extend((place + 1..=8).map(sent));
            assert_eq!(check_resumed(&whole(), at, &resumed), []);
        }
    }

    #[test]
    fn every_event_that_is_lost_repeated_or_late_is_found() {
        for at in 1..whole().len() {
            let Some(Message::Event(event)) = &whole()[at].message else { continue };
            let revision = event.revision;
            let mut history = whole();
            let repeated = history[at].clone();
            history.push(repeated);
            assert_eq!(found(&history), [Violation::Back { after: 8, revision }]);

            let mut history = whole();
            let lost = entries(&[history.remove(at)]).remove(0);
            assert_eq!(check_log(&history, &entries(&whole())), [Violation::Missing(lost)]);
            assert_eq!(found(&history).is_empty(), revision == 8, "{revision} is lost");
        }
        let mut swapped = whole();
        swapped.swap(1, 2);
        let (gap, back) =
            (Violation::Gap { after: 2, revision: 4 }, Violation::Back { after: 4, revision: 3 });
        assert_eq!(found(&swapped), [gap, back]);
        let mut altered = whole();
        altered[2] = sent(40);
        altered[2].cursor = "c4".to_owned();
        assert_eq!(check_log(&altered, &entries(&whole())).len(), 2, "one lost, one unknown");
    }

    #[test]
    fn a_bookmark_that_runs_ahead_or_back_is_found_under_a_filter_too() {
        let mut ahead = whole();
        ahead[4] = marked(6);
        let violation = Violation::BookmarkAhead { bookmark: 6, revision: 6 };
        assert_eq!(check_stream(&ahead, Asked::Some), std::slice::from_ref(&violation));
        assert_eq!(found(&ahead), [violation.clone(), violation]);
        let mut back = whole();
        back[4] = marked(4);
        for asked in [Asked::All, Asked::Some] {
            let violation = Violation::BookmarkBack { after: 5, bookmark: 4 };
            assert_eq!(check_stream(&back, asked), [violation]);
        }
    }

    #[test]
    fn cursors_that_are_missing_or_of_another_place_are_found() {
        let mut without = whole();
        without[3].cursor.clear();
        assert!(found(&without).contains(&Violation::Cursor { revision: 5 }));
        let mut another = whole();
        another[5].cursor = "c5".to_owned();
        assert_eq!(found(&another), [Violation::CursorsDiffer { revision: 6 }]);
        let elsewhere = [Violation::ResumedElsewhere { after: 4 }];
        for resumed in [vec![marked(5), sent(6)], vec![marked(4), sent(6)], vec![sent(5)], vec![]] {
            assert_eq!(check_resumed(&whole(), 2, &resumed), elsewhere);
        }
    }

    #[test]
    fn a_pending_approval_behind_their_end_is_found() {
        let message = Some(Message::PendingApproval(Approval::default()));
        let pending = WatchApprovalsResponse { message, cursor: String::new() };
        let message = Some(Message::Bookmark(Bookmark { revision: 2, pending_complete: true }));
        let complete = WatchApprovalsResponse { message, cursor: "c2".to_owned() };
        assert_eq!(found(&[pending.clone(), complete.clone(), sent(3)]), []);
        assert_eq!(found(&[complete, pending.clone()]), [Violation::PendingLate]);
        let told = WatchApprovalsResponse { cursor: "c2".to_owned(), ..pending };
        assert_eq!(found(&[told]), [Violation::Cursor { revision: 0 }]);
    }
}
