//! What an approval is. What commands do to it is in [`gate`] and [`transition`], what passing time does in [`time`];
//! nothing here does I/O or reads a clock.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    digest::{Context, RequestHash},
    names::{Action, IdempotencyKey, Namespace, OnBehalfOf, Principal, Text, WorkspaceId},
};

pub mod gate;
pub mod time;
pub mod transition;

#[cfg(test)]
mod exploration;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod world;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant),+
        }

        impl $name {
            /// Every value, in the order of the contract.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word that the contract and the database use.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }

            /// Reads the word back; an unknown one is an error, never a default.
            pub fn parse(word: &str) -> Result<Self, String> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("{word:?} is no {}", stringify!($name))),
                }
            }
        }
    };
}

words!(
    /// Where an approval stands. The first two are open, all others final.
    State {
        /// Waiting for approvers.
        Pending = "PENDING",
        /// Approved and not yet consumed.
        Approved = "APPROVED",
        /// Refused by an approver.
        Denied = "DENIED",
        /// Used, once, by the operation it was given for.
        Consumed = "CONSUMED",
        /// Lapsed, undecided or unused.
        Expired = "EXPIRED",
        /// Taken back by its requester while pending.
        Withdrawn = "WITHDRAWN",
        /// Taken back by an approver before it was used.
        Revoked = "REVOKED",
    }
);

words!(
    /// What an approver decided.
    Decision {
        /// The operation may run once.
        Approve = "APPROVE",
        /// The operation must not run.
        Deny = "DENY",
    }
);

words!(
    /// What became of an operation after it consumed its approval.
    OperationResult {
        /// It ran to its end.
        Succeeded = "SUCCEEDED",
        /// It failed.
        Failed = "FAILED",
        /// The caller cannot tell.
        Unknown = "UNKNOWN",
    }
);

words!(
    /// What happened to an approval.
    EventKind {
        /// A pending approval was created.
        Requested = "REQUESTED",
        /// A pending approval was brought before an ancestor workspace.
        Escalated = "ESCALATED",
        /// A verdict was recorded that did not settle the approval.
        Reviewed = "REVIEWED",
        /// Enough approvers approved.
        Approved = "APPROVED",
        /// An approver denied.
        Denied = "DENIED",
        /// The approval was used.
        Consumed = "CONSUMED",
        /// It lapsed, undecided or unused.
        Expired = "EXPIRED",
        /// Its requester took it back.
        Withdrawn = "WITHDRAWN",
        /// An approver took it back.
        Revoked = "REVOKED",
        /// The consumer reported what became of the operation.
        ResultReported = "RESULT_REPORTED",
    }
);

impl State {
    /// Whether the approval can still change state.
    pub fn is_open(self) -> bool {
        match self {
            Self::Pending | Self::Approved => true,
            Self::Denied | Self::Consumed | Self::Expired | Self::Withdrawn | Self::Revoked => {
                false
            }
        }
    }
}

/// What an approval is for: exactly this, asked for by exactly these. An approval for one operation never
/// authorises another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operation {
    /// Where it acts.
    pub workspace_id: WorkspaceId,
    /// What it does.
    pub action: Action,
    /// With which parameters.
    pub context: Context,
    /// The three above, bound together.
    pub request_hash: RequestHash,
    /// The principal that asks.
    pub requested_by: Principal,
    /// In whose name it asks, if in anybody's.
    pub on_behalf_of: Option<OnBehalfOf>,
}

impl Operation {
    /// An operation and its hash.
    pub fn new(
        workspace_id: WorkspaceId,
        action: Action,
        context: Context,
        requested_by: Principal,
        on_behalf_of: Option<OnBehalfOf>,
    ) -> Self {
        let request_hash = RequestHash::of(&workspace_id, &action, &context);
        Self { workspace_id, action, context, request_hash, requested_by, on_behalf_of }
    }

    /// Whether the two are one operation.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.key() == other.key()
    }

    /// What makes it this operation and no other, within a namespace: the columns of the store's unique
    /// index over open approvals.
    pub fn key(&self) -> OperationKey {
        OperationKey {
            workspace_id: self.workspace_id.clone(),
            action: self.action.clone(),
            request_hash: self.request_hash,
            requested_by: self.requested_by.clone(),
            on_behalf_of: self.on_behalf_of.clone(),
        }
    }
}

/// The identity of an operation within its namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OperationKey {
    workspace_id: WorkspaceId,
    action: Action,
    request_hash: RequestHash,
    requested_by: Principal,
    on_behalf_of: Option<OnBehalfOf>,
}

/// What an approval needs and how long it lasts, fixed when it is requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Distinct approvers needed; at least 1.
    pub approvals_required: u32,
    /// How long the request may wait for approvers.
    pub pending_ttl: SignedDuration,
    /// How long the approval may wait to be consumed.
    pub approved_ttl: SignedDuration,
    /// How long after a denial the same request is refused without asking.
    pub deny_cooldown: SignedDuration,
    /// When a request still pending is brought before the next ancestor, counted from its creation; rising.
    pub escalate_after: Arc<[SignedDuration]>,
    /// Pending approvals allowed at once in the workspace.
    pub max_pending: u32,
    /// SHA-256 (hex) of the policy that says so.
    pub policy_digest: Arc<str>,
}

/// The part of an approval that never changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// UUIDv7, made from the database's clock.
    pub id: Uuid,
    /// The organisation.
    pub namespace: Namespace,
    /// What is asked for.
    pub operation: Operation,
    /// The requester's reason.
    pub reason: Text,
    /// Distinct approvers needed; at least 1.
    pub approvals_required: u32,
    /// How long the approval, once given, may wait to be consumed.
    pub approved_ttl: SignedDuration,
    /// How long after a denial the same request is refused without asking.
    pub deny_cooldown: SignedDuration,
    /// When it is brought before the next ancestor while it is pending, counted from its creation; rising.
    pub escalate_after: Arc<[SignedDuration]>,
    /// SHA-256 (hex) of the policy under which it was requested.
    pub policy_digest: Arc<str>,
    /// Denials of the same workspace and action in the 24 hours before.
    pub recent_denials: u32,
    /// When it was requested.
    pub create_time: Timestamp,
}

/// The part of an approval that changes. Each event records it, but for the consumer's key and for what is noted for
/// the next escalation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Standing {
    /// Where it stands.
    pub state: State,
    /// Counts the events: the nth leaves it at version n.
    pub version: u32,
    /// One for each approver, oldest first.
    pub verdicts: Vec<Verdict>,
    /// When it lapses while open; when it would have, afterwards.
    pub expire_time: Timestamp,
    /// When it was approved or denied.
    pub decide_time: Option<Timestamp>,
    /// When it was consumed, by whom, and in which attempt.
    pub consumption: Option<Consumption>,
    /// Once denied: until when the same request is refused.
    pub cooldown_end: Option<Timestamp>,
    /// What became of the operation.
    pub result: Option<OperationResult>,
    /// The last ancestor it was brought before.
    pub escalated_to: Option<WorkspaceId>,
    /// While pending: when it is to be brought before the next.
    pub escalate_time: Option<Timestamp>,
}

/// The one use of an approval.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Consumption {
    /// When.
    pub time: Timestamp,
    /// By which principal.
    pub by: Principal,
    /// In which attempt, if the caller named it.
    pub key: Option<IdempotencyKey>,
}

/// One approver's verdict.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Verdict {
    /// Who.
    pub approver: Principal,
    /// What was decided.
    pub decision: Decision,
    /// Why.
    pub reason: Text,
    /// When.
    pub time: Timestamp,
}

/// One request for human approval, from its creation to its end. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Approval {
    /// What never changes.
    pub request: Arc<Request>,
    /// What does.
    pub standing: Standing,
}

impl Approval {
    /// Its id.
    pub fn id(&self) -> Uuid {
        self.request.id
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.standing.state
    }

    /// Whether its time has run out while it was open.
    pub fn has_lapsed(&self, now: Timestamp) -> bool {
        self.state().is_open() && self.standing.expire_time <= now
    }
}

/// Something that happened to an approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// The workspace it is addressed to: the approval's own, or the ancestor it was brought before.
    pub workspace_id: WorkspaceId,
    /// The approval in the state this event left it in.
    pub approval: Approval,
    /// Who caused it; none when the authority did.
    pub actor: Option<Principal>,
    /// The actor's own words where no verdict holds them.
    pub note: Option<Text>,
    /// When.
    pub time: Timestamp,
}

impl Event {
    /// Whether it begins an approval.
    pub fn is_request(&self) -> bool {
        self.kind == EventKind::Requested
    }

    /// The verdict that this event recorded.
    pub fn verdict(&self) -> Option<&Verdict> {
        match self.kind {
            EventKind::Reviewed | EventKind::Approved | EventKind::Denied => {
                self.approval.standing.verdicts.last()
            }
            EventKind::Requested
            | EventKind::Escalated
            | EventKind::Consumed
            | EventKind::Expired
            | EventKind::Withdrawn
            | EventKind::Revoked
            | EventKind::ResultReported => None,
        }
    }
}
