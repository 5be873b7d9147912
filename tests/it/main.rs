//! Tests through the wire: a real PostgreSQL, real servers, real clients. Each test has a database of its own
//! on a cluster that the run starts, and that is gone when the run is, however it ends.

mod commands;
mod cycle;
mod database;
mod failover;
mod harness;
mod keeper;
mod migrations;
mod model;
mod outage;
mod permissions;
mod processes;
mod races;
mod requests;
mod rules;
mod server;
mod service;
mod settling;
mod waiting;
mod wake_ups;
mod walkthrough;
mod watch;
mod workspaces;
