//! How long a call may take: as long as its caller waits, and never for ever.

use std::time::Duration;

use tonic::{Response, Status, metadata::MetadataMap};

use crate::error::Error;

/// How long a call may wait for the database where its caller names no deadline.
const PATIENCE: Duration = Duration::from_secs(10);

/// Carries out a call within its caller's deadline, less what the answer needs to get there in time.
///
/// When the time is up the caller is told `late`; what was begun goes on and harms nobody.
pub(super) async fn within<T>(
    deadline: Option<Duration>,
    late: Error,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<Response<T>, Status> {
    let patience = match deadline {
        Some(deadline) => PATIENCE.min(deadline.mul_f64(0.9)),
        None => PATIENCE,
    };
    match tokio::time::timeout(patience, work).await {
        Ok(answer) => Ok(Response::new(answer?)),
        Err(_) => Err(late.into()),
    }
}

/// The caller's deadline, from the `grpc-timeout` header: at most eight digits and a unit ("PROTOCOL-HTTP2" of
/// the gRPC specification). A header that cannot be read is none: the transport refuses it by itself.
pub(super) fn of(metadata: &MetadataMap) -> Option<Duration> {
    let header = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &'static str) -> Option<Duration> {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", header.parse().expect("ASCII"));
        of(&metadata)
    }

    #[test]
    fn the_header_is_read_as_the_specification_has_it() {
        assert_eq!(read("2S"), Some(Duration::from_secs(2)));
        assert_eq!(read("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(read("999999999S"), None);
        assert_eq!(read("S"), None);
        assert_eq!(read("1x"), None);
        assert_eq!(of(&MetadataMap::new()), None);
    }
}
