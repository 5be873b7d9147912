//! How the database can fail us, and what that means for what was asked of it.

use tokio_postgres::error::SqlState;

use crate::error::Error;

/// Why the store could not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// The database cannot be reached or is in no state to work. Nothing was changed; trying again may help.
    Unavailable(String),
    /// The database refused a statement, or holds what it should not. Nothing was changed; trying the same
    /// again will not help.
    Fault(String),
    /// The role that we work as may not do this. Nothing was changed; it needs other rights, or another role.
    Denied(String),
    /// Another transaction held what this one needs for too long. Nothing was changed.
    Busy(String),
    /// COMMIT was sent and its outcome is not known.
    Unknown,
    /// The namespace has no log yet.
    NoLog,
}

impl Failure {
    /// A connection could not be made.
    pub(super) fn connecting(error: tokio_postgres::Error) -> Self {
        Self::Unavailable(describe(&error))
    }

    /// The same, of the host that it happened with, behind what happened with those before it.
    pub(super) fn of_host(self, host: &str, before: Option<&Self>) -> Self {
        let words = |why: &str| match before.and_then(Self::why) {
            Some(before) => format!("{before}; {host}: {why}"),
            None => format!("{host}: {why}"),
        };
        match self {
            Self::Unavailable(why) => Self::Unavailable(words(&why)),
            Self::Fault(why) => Self::Fault(words(&why)),
            Self::Denied(why) => Self::Denied(words(&why)),
            Self::Busy(why) => Self::Busy(words(&why)),
            Self::Unknown | Self::NoLog => self,
        }
    }

    fn why(&self) -> Option<&str> {
        match self {
            Self::Unavailable(why) | Self::Fault(why) | Self::Denied(why) | Self::Busy(why) => {
                Some(why)
            }
            Self::Unknown | Self::NoLog => None,
        }
    }

    /// A stored value is not what this version of the server writes.
    pub(super) fn corrupt(what: impl std::fmt::Display) -> Self {
        Self::Fault(format!("unexpected value in the database: {what}"))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unavailable(why) => write!(f, "database unavailable: {why}"),
            Self::Busy(why) => write!(f, "database busy: {why}"),
            Self::Fault(why) => write!(f, "database fault: {why}"),
            Self::Denied(why) => write!(f, "not allowed in the database: {why}"),
            Self::Unknown => f.write_str("the outcome of COMMIT is unknown"),
            Self::NoLog => f.write_str("the namespace has no log"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.code() {
            // No answer from the server: the connection is gone.
            None => Self::Unavailable(describe(&error)),
            Some(&(SqlState::LOCK_NOT_AVAILABLE | SqlState::QUERY_CANCELED)) => {
                Self::Busy(describe(&error))
            }
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Self::Denied(describe(&error)),
            Some(code) if is_transient(code) => Self::Unavailable(describe(&error)),
            Some(_) => Self::Fault(describe(&error)),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable(why) | Failure::Busy(why) => {
                tracing::warn!(%why, "database unavailable");
                Self::StoreUnavailable
            }
            Failure::Unknown => Self::OutcomeUnknown,
            Failure::Fault(_) | Failure::Denied(_) | Failure::NoLog => Self::internal(failure),
        }
    }
}

/// Whether the same statement may succeed later or elsewhere (PostgreSQL documentation, appendix A).
fn is_transient(code: &SqlState) -> bool {
    let class = code.code().get(..2).unwrap_or_default();
    // Connection exceptions, transaction rollbacks, insufficient resources, operator intervention and system
    // errors; a server that has become a standby.
    matches!(class, "08" | "40" | "53" | "57" | "58")
        || *code == SqlState::READ_ONLY_SQL_TRANSACTION
}

/// The server's own words and its code; never the statement's parameters.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}
