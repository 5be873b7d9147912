//! What is known of a run afterwards: what was asked and answered, and what the database says.

use std::{collections::BTreeMap, time::Duration};

use approval_authority::approval::{Decision, EventKind, OperationResult, State};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

/// A run, whole.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In no order.
    pub calls: Vec<Call>,
    /// The log, by revision.
    pub events: Vec<Event>,
    /// Every approval as the run left it.
    pub rows: Vec<Row>,
    pub terms: Terms,
}

/// What the policy of the run asks for.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Of each action.
    pub quorums: BTreeMap<String, usize>,
    pub pending_ttl: SignedDuration,
    pub approved_ttl: SignedDuration,
    pub deny_cooldown: SignedDuration,
    pub max_pending: usize,
}

/// A call, from just before it was made to just after it was answered, on one clock for all callers.
#[derive(Clone, Debug)]
pub struct Call {
    pub began: Duration,
    pub ended: Duration,
    /// The principal.
    pub by: String,
    pub ask: Ask,
    pub answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ask {
    Require { operation: Operation, key: Option<String> },
    Decide { approval: Uuid, decision: Decision },
    Withdraw { approval: Uuid },
    Revoke { approval: Uuid },
    Report { approval: Uuid, result: OperationResult },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    LetThrough {
        seen: Seen,
        replayed: bool,
    },
    /// Pending, or denied.
    Held(Seen),
    /// A command on an approval was carried out.
    Done(Seen),
    /// Nothing was changed, for this reason.
    Refused(String),
    /// It may have been carried out or not.
    Unknown,
}

/// An approval as an answer shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub approval: Uuid,
    pub version: u32,
    pub state: State,
}

/// What an approval is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operation {
    pub workspace: String,
    pub action: String,
    /// In canonical form.
    pub context: String,
    pub requested_by: String,
    /// Empty for nobody's.
    pub on_behalf_of: String,
}

#[derive(Clone, Debug)]
pub struct Event {
    pub revision: i64,
    pub kind: EventKind,
    pub approval: Uuid,
    pub version: u32,
    pub state: State,
    pub expire_time: Timestamp,
    pub result: Option<OperationResult>,
    pub actor: Option<String>,
    pub time: Timestamp,
}

#[derive(Clone, Debug)]
pub struct Row {
    pub id: Uuid,
    pub operation: Operation,
    pub state: State,
    pub version: u32,
    pub result: Option<OperationResult>,
    pub consumed_key: Option<String>,
}

impl Operation {
    /// What a denial is about, whoever asks.
    pub fn request(&self) -> [&str; 3] {
        [&self.workspace, &self.action, &self.context]
    }

    /// Whether it is asked for by this principal, or in its name, in full or without its source.
    pub fn is_asked_for_by(&self, principal: &str) -> bool {
        let (_, subject) = principal.split_once(':').expect("a principal");
        self.requested_by == principal
            || self.on_behalf_of == principal
            || self.on_behalf_of == subject
    }
}

impl Answer {
    pub fn seen(&self) -> Option<Seen> {
        match self {
            Self::LetThrough { seen, .. } | Self::Held(seen) | Self::Done(seen) => Some(*seen),
            Self::Refused(_) | Self::Unknown => None,
        }
    }
}
