//! A namespace in memory: what the ledger does with a database, without the database. Commands go through the core
//! with all that is there in view, and the events they come to are written down.

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{
    Approval, Event, State,
    gate::{self, Circumstances, Gate, Require},
    time,
    transition::{self, Command, Outcome},
};
use crate::names::WorkspaceId;

/// Each workspace that lies in another. Any other is a root.
const TREE: &[(&str, &str)] = &[("leaf", "team"), ("team", "root")];

/// The approvals of a namespace, in the order in which they were requested, and the time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) approvals: Vec<Approval>,
}

impl World {
    pub(super) fn new() -> Self {
        Self { now: "2026-03-01T12:00:00Z".parse().unwrap(), approvals: Vec::new() }
    }

    pub(super) fn require(&mut self, call: &Require) -> Outcome<Gate> {
        let new_id = Uuid::from_u128(self.approvals.len() as u128 + 1);
        let outcome = gate::require(call, &self.circumstances(call), new_id, self.now);
        self.write(&outcome.events);
        outcome
    }

    pub(super) fn apply(&mut self, place: usize, command: &Command) -> Outcome<Approval> {
        let outcome = transition::apply(&self.approvals[place], command, self.now);
        self.write(&outcome.events);
        outcome
    }

    pub(super) fn keep(&mut self, place: usize) -> Vec<Event> {
        let workspace = &self.approvals[place].request.operation.workspace_id;
        let kept = time::keep(&self.approvals[place], &path(workspace), self.now);
        self.write(&kept.events);
        self.approvals[place] = kept.approval;
        kept.events
    }

    fn write(&mut self, events: &[Event]) {
        for event in events {
            match self.approvals.iter_mut().find(|approval| approval.id() == event.approval.id()) {
                Some(row) => *row = event.approval.clone(),
                None => self.approvals.push(event.approval.clone()),
            }
        }
    }

    fn circumstances(&self, call: &Require) -> Circumstances {
        let operation = &call.operation;
        let of = |approval: &Approval| approval.request.operation.clone();
        let denials = || self.approvals.iter().filter(|a| a.state() == State::Denied);
        let since = self.now - SignedDuration::from_hours(24);
        let used_in_this_attempt = |approval: &&Approval| {
            approval.standing.consumption.as_ref().is_some_and(|consumption| {
                consumption.by == operation.requested_by
                    && consumption.key.is_some()
                    && consumption.key == call.key
            })
        };
        let here = |approval: &Approval| of(approval).workspace_id == operation.workspace_id;
        Circumstances {
            key_holder: self.approvals.iter().find(used_in_this_attempt).cloned(),
            denial: denials()
                .filter(|a| of(a).request_hash == operation.request_hash)
                .max_by_key(|a| a.standing.cooldown_end)
                .cloned(),
            open: self
                .approvals
                .iter()
                .find(|a| a.state().is_open() && of(a).is_same_as(operation))
                .cloned(),
            parent: path(&operation.workspace_id).get(1).cloned(),
            pending: self.pending_in(&operation.workspace_id),
            recent_denials: denials()
                .filter(|a| here(a) && of(a).action == operation.action)
                .filter(|a| a.standing.decide_time > Some(since))
                .count() as u32,
        }
    }

    /// Pending approvals in a workspace that have not lapsed.
    pub(super) fn pending_in(&self, workspace: &WorkspaceId) -> u32 {
        let pending = self.approvals.iter().filter(|approval| {
            approval.request.operation.workspace_id == *workspace
                && approval.state() == State::Pending
                && !approval.has_lapsed(self.now)
        });
        pending.count() as u32
    }
}

/// A workspace and its ancestors, nearest first.
fn path(workspace: &WorkspaceId) -> Vec<WorkspaceId> {
    let mut path = vec![workspace.clone()];
    while let Some((_, parent)) =
        TREE.iter().find(|(child, _)| Some(*child) == path.last().map(WorkspaceId::as_str))
    {
        path.push(WorkspaceId::parse(parent).unwrap());
    }
    path
}
