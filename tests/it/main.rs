//! Tests through the wire: a real PostgreSQL, real servers, real clients. Each test has a database of its own
//! on a cluster that the run starts, and that is gone when the run is, however it ends.

mod commands;
mod cycle;
mod database;
mod failover;
mod harness;
mod history;
mod migrations;
mod outage;
mod permissions;
mod processes;
mod proxy;
mod races;
mod replay;
mod requests;
mod server;
mod settling;
mod walkthrough;
mod watch;
mod workspaces;
