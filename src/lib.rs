//! A human approval, consumed exactly once, in front of every destructive operation.
//!
//! A functional core in an imperative shell. What a command does to an approval is a pure function, in
//! [`approval::gate`], [`approval::transition`] and [`approval::time`]; the shell loads, locks, writes and tells.
//!
//! - The core: [`names`], [`digest`], [`approval`], [`policy`], [`error`], and [`document`], [`duration`] and
//!   [`visible`] for what people write and read. No I/O, no clock.
//! - [`store`]: all SQL. One place commits ([`store::transaction`]); one file grants ([`store::role`]).
//! - [`ledger`]: the one door for changes. Calls that wait are carried out together, one transaction a batch.
//! - [`keeper`]: sees to approvals whose time has come, on every replica.
//! - [`feed`]: tails each log in use and hands its events to all who follow it.
//! - [`waiting`]: calls to the gate that wait for a decision: woken by the feed, answered by the ledger.
//! - [`auth`]: credentials (tokens, certificates, JWTs) into callers, roles, the table of permissions.
//! - [`tls`]: what is shown and asked for in a handshake, with callers and with the database.
//! - [`grpc`]: the contract ([`proto`]) in front of all that.
//! - [`gate`]: the client side, for Rust backends: a gate that fails closed. The feature `gate` has it without any of the server.
//! - [`metrics`], [`admin`]: what is counted, in each part by itself; and the page that shows it, with liveness and readiness.
//! - [`traces`]: spans of calls and of the batches that serve them, below those of the callers.
//! - [`cli`], [`config`], [`embedded`]: the program, its files, and the private PostgreSQL of `dev` and the tests. The commands of
//!   people call the authority through the gate's connections.
//!
//! Dependencies point one way: `cli, grpc -> keeper -> ledger, feed -> store -> the core`. The gate needs [`names`],
//! [`digest`], [`visible`] and [`proto`], and nothing else.
//!
//! What holds between the parts:
//!
//! - An approval changes only by an event, and the row and the event are written in one transaction, under
//!   the lock of the namespace's log. So revisions are dense and in commit order, and what is read under that
//!   lock is exact. Only when an approval is next looked at for escalation is moved without one.
//! - An answer that says that something is so, be it for the first time or again, is sent after a COMMIT that
//!   the server confirmed without a warning. Only a look that finds a pending request or a denial is answered
//!   without one: it lets nobody through. Where that cannot be known, the ledger asks the log; where that cannot
//!   be had, the caller is told `UNAVAILABLE`.
//! - Two servers on one database know nothing of each other. The unique index over open approvals, the row
//!   locks and the log's lock carry the promises.

#[cfg(feature = "server")]
pub mod admin;
#[cfg(feature = "server")]
pub mod approval;
#[cfg(feature = "server")]
pub mod auth;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod config;
pub mod digest;
#[cfg(feature = "server")]
pub mod document;
#[cfg(feature = "server")]
pub mod duration;
#[cfg(feature = "server")]
pub mod embedded;
#[cfg(feature = "server")]
pub mod error;
#[cfg(feature = "server")]
pub mod feed;
#[cfg(test)]
#[cfg(feature = "server")]
mod fuzz;
#[cfg(feature = "gate")]
pub mod gate;
#[cfg(feature = "server")]
pub mod grpc;
#[cfg(feature = "server")]
pub mod json;
#[cfg(feature = "server")]
pub mod keeper;
#[cfg(feature = "server")]
pub mod lasting;
#[cfg(feature = "server")]
pub mod ledger;
#[cfg(feature = "server")]
pub mod metrics;
pub mod names;
#[cfg(feature = "server")]
pub mod policy;
#[cfg(any(feature = "gate", feature = "server"))]
pub mod proto;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "server")]
pub mod tls;
#[cfg(feature = "server")]
pub mod traces;
pub mod visible;
#[cfg(feature = "server")]
pub mod waiting;
