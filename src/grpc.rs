//! The service: requests in, the domain's words in between, answers out.

mod answer;
pub mod approvals;
mod commands;
mod connections;
pub mod convert;
mod deadline;
pub mod fields;
#[cfg(test)]
mod fuzz;
mod guard;
mod health;
pub mod limits;
pub mod listener;
mod measure;
mod open;
mod page;
mod rights;
pub mod server;
pub mod status;
mod stream;
mod taken;
mod watch;
pub mod workspaces;
