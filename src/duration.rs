//! Durations as people write them in files: "90d", "1h 30m". A day has 24 hours.

use jiff::{SignedDuration, Span, SpanRelativeTo};
use serde::{Deserialize, Deserializer, de::Error};

/// Reads a duration. Months and years are refused: they have no fixed length. The error does not repeat the text.
pub fn parse(text: &str) -> Result<SignedDuration, String> {
    let span: Span = text.parse().map_err(|_| "is no duration, such as 15m or 90d".to_owned())?;
    span.to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| "has units without a fixed length; count in days".to_owned())
}

/// The same, for a key of a file.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SignedDuration, D::Error> {
    Written::deserialize(deserializer).map(|Written(duration)| duration)
}

/// A duration that stands in a file.
#[derive(Clone, Copy, Debug)]
pub struct Written(pub SignedDuration);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).map(Self).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_less_are_read_and_more_is_refused() {
        let hours = SignedDuration::from_hours;
        assert_eq!(parse("90d"), Ok(hours(90 * 24)));
        assert_eq!(parse("1w"), Ok(hours(7 * 24)));
        assert_eq!(parse("1h 30m"), Ok(SignedDuration::from_mins(90)));
        assert_eq!(parse("-1h"), Ok(hours(-1)));
        for wrong in ["", "90", "1 month", "1y", "soon"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
