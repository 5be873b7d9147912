use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::fuzz::{few_slips, run, slips, spoilt, spoilt_text};

fn revisions() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => 0..20i64,
        1 => select(vec![-1, i64::MIN, i64::MAX, i64::MAX - 1]),
        1 => any::<i64>(),
    ]
}

fn epochs() -> impl Strategy<Value = Uuid> {
    prop_oneof![
        2 => Just(Log::NONE.epoch),
        4 => Just(Uuid::from_u128(7)),
        1 => any::<u128>().prop_map(Uuid::from_u128),
    ]
}

fn cursors() -> impl Strategy<Value = Cursor> {
    ("[a-z0-9-]{1,63}", epochs(), revisions(), 0..3i64).prop_map(
        |(namespace, epoch, revision, tag)| {
            let namespace = Namespace::parse(namespace).unwrap();
            Cursor { namespace, epoch, revision, tag }
        },
    )
}

/// Logs as there can be: the floor is not above the head.
fn logs() -> impl Strategy<Value = Log> {
    (epochs(), 0..20i64, 0..20i64, 0..3i64, 0..3i64).prop_map(
        |(epoch, floor, more, floor_tag, head_tag)| Log {
            epoch,
            floor,
            floor_tag,
            head: floor + more,
            head_tag,
        },
    )
}

#[test]
fn a_cursor_comes_back_as_it_was_given_or_is_refused() {
    run("cursors", &["the same", "refused"], (cursors(), slips()), |(cursor, slips)| {
        let text = cursor.encode();
        prop_assert_eq!(Cursor::decode(&text, &cursor.namespace), Ok(cursor.clone()));
        let spoilt = spoilt_text(&text, &slips);
        match Cursor::decode(&spoilt, &cursor.namespace) {
            Ok(read) => {
                prop_assert_eq!((read, spoilt), (cursor, text));
                Ok("the same")
            }
            Err(error) => {
                prop_assert_eq!(error, Error::CursorInvalid);
                Ok("refused")
            }
        }
    });
}

/// The checksum is no secret: whoever wants to can make a good one.
#[test]
fn a_cursor_that_was_made_up_has_one_text_and_opens_no_more_than_a_log_holds() {
    let made_up = prop_oneof![
        3 => (cursors(), few_slips()).prop_map(|(cursor, slips)| {
            let bytes = URL_SAFE_NO_PAD.decode(cursor.encode()).unwrap();
            spoilt(&bytes[..bytes.len() - CHECKSUM], &slips)
        }),
        1 => vec(any::<u8>(), 0..120),
    ];
    let cases = (made_up, logs(), prop_oneof![Just(None), (0..3i64).prop_map(Some)]);
    run(
        "cursors made up",
        &["refused", "followed", "of no log"],
        cases,
        |(content, log, there)| {
            let sum = checksum(&content);
            let text = URL_SAFE_NO_PAD.encode([&content[..], &sum].concat());
            let Some(cursor) = URL_SAFE_NO_PAD.decode(&text).ok().and_then(|bytes| parse(&bytes))
            else {
                return Ok("refused");
            };
            prop_assert_eq!(cursor.encode(), text);
            if cursor.check_against(&log, there).is_err() {
                return Ok("of no log");
            }
            let at_the_start =
                cursor.epoch == Log::NONE.epoch && cursor.revision == 0 && log.floor == 0;
            let expected = if cursor.revision == log.floor { Some(log.floor_tag) } else { there };
            let in_the_log = cursor.epoch == log.epoch
                && (log.floor..=log.head).contains(&cursor.revision)
                && expected == Some(cursor.tag);
            prop_assert!(at_the_start || in_the_log, "{:?} in {:?}", cursor, log);
            Ok("followed")
        },
    );
}
