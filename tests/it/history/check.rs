//! The rules that a history is held against: pure functions that say, in plain words, what breaks each.

use std::collections::HashMap;

use uuid::Uuid;

use super::record::{Event, History, Row};

mod answers;
mod log;

/// What breaks a rule.
pub type Rule = fn(&Facts) -> Vec<String>;

macro_rules! rules {
    ($($module:ident::$rule:ident,)+) => { &[$((stringify!($rule), $module::$rule)),+] };
}

/// Every rule, by its name.
pub const RULES: &[(&str, Rule)] = rules![
    log::revisions_and_versions_are_dense,
    log::time_does_not_go_back,
    log::changes_are_those_of_the_table,
    log::one_open_approval_for_each_operation,
    log::enough_others_have_approved,
    log::a_denial_holds_for_its_cooldown,
    log::the_cap_is_never_exceeded,
    log::deadlines_hold,
    log::a_key_consumes_once,
    log::rows_are_as_the_log_left_them,
    answers::an_approval_lets_one_attempt_through,
    answers::what_is_let_through_has_been_consumed,
    answers::only_the_attempt_that_consumed_is_told_again,
    answers::what_was_acknowledged_is_in_the_log,
    answers::nothing_is_in_the_log_that_nobody_asked_for,
    answers::the_log_is_in_the_order_of_time,
    answers::nobody_is_shown_what_is_over,
];

/// A history, indexed.
pub struct Facts<'a> {
    pub history: &'a History,
    pub rows: HashMap<Uuid, &'a Row>,
    /// Each approval's events, in the order of the log.
    pub events: HashMap<Uuid, Vec<&'a Event>>,
}

impl<'a> Facts<'a> {
    fn new(history: &'a History) -> Self {
        let rows = history.rows.iter().map(|row| (row.id, row)).collect();
        let mut events: HashMap<Uuid, Vec<&Event>> = HashMap::new();
        for event in &history.events {
            events.entry(event.approval).or_default().push(event);
        }
        Self { history, rows, events }
    }

    /// The row of an event: the database's foreign key sees to it that there is one.
    fn row(&self, event: &Event) -> &'a Row {
        self.rows[&event.approval]
    }

    fn events_of(&self, approval: Uuid) -> &[&'a Event] {
        self.events.get(&approval).map_or(&[], Vec::as_slice)
    }

    /// The event that left an approval at this version.
    fn event(&self, approval: Uuid, version: u32) -> Option<&'a Event> {
        self.events_of(approval).iter().copied().find(|event| event.version == version)
    }
}

/// Everything that breaks a rule, each with the rule's name.
pub fn check(history: &History) -> Vec<(&'static str, String)> {
    let facts = Facts::new(history);
    let broken = |(name, rule): &(&'static str, Rule)| {
        rule(&facts).into_iter().map(|what| (*name, what)).collect::<Vec<_>>()
    };
    RULES.iter().flat_map(broken).collect()
}
