//! Times of the authority's, for people.

use std::time::Duration;

use jiff::{Timestamp, Unit};

/// A moment, to the second.
pub(super) fn moment(time: Option<prost_types::Timestamp>) -> String {
    read(time).map_or_else(String::new, |time| time.round(Unit::Second).unwrap_or(time).to_string())
}

/// How long from now to a moment, in its two largest units; "0s" when it has passed.
pub(super) fn left(time: Option<prost_types::Timestamp>, now: Timestamp) -> String {
    let seconds = read(time).map_or(0, |time| time.duration_since(now).as_secs());
    span(Duration::from_secs(seconds.try_into().unwrap_or(0)))
}

/// Whether a moment is still to come.
pub(super) fn is_ahead(time: Option<prost_types::Timestamp>, now: Timestamp) -> bool {
    read(time).is_some_and(|time| time > now)
}

/// A length of time in its two largest units.
pub(super) fn span(length: Duration) -> String {
    let seconds = length.as_secs();
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {seconds}s"),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

fn read(time: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    let time = time?;
    Timestamp::new(time.seconds, time.nanos).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_in_two_units() {
        let now = Timestamp::from_second(1_000_000).expect("a time");
        for (seconds, expected) in [
            (-5, "0s"),
            (0, "0s"),
            (59, "59s"),
            (60, "1m 0s"),
            (3_599, "59m 59s"),
            (3_600, "1h 0m"),
            (86_399, "23h 59m"),
            (86_400, "1d 0h"),
            (10 * 86_400, "10d 0h"),
        ] {
            let time = prost_types::Timestamp { seconds: 1_000_000 + seconds, nanos: 0 };
            assert_eq!(left(Some(time), now), expected);
        }
        let time = prost_types::Timestamp { seconds: 1_000_000, nanos: 900 };
        assert_eq!(moment(Some(time)), "1970-01-12T13:46:40Z");
    }
}
