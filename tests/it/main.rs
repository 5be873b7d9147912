//! Tests through the wire: a real PostgreSQL, real servers, real clients. Each test has a database of its own
//! on a cluster that the run starts, and that is gone when the run is, however it ends.

mod abuse;
mod certificates;
mod cli;
mod commands;
mod costs;
mod cycle;
mod database;
mod database_role;
mod database_tls;
mod deployment;
mod documents;
mod examples;
mod failover;
mod feed;
mod fuzz;
mod gate;
mod harness;
mod history;
mod issuer;
mod jwt;
mod keeper;
mod lists;
mod migrations;
mod model;
mod operations;
mod outage;
mod permissions;
mod plans;
mod policy;
mod processes;
mod proxy;
mod races;
mod relay;
mod reload;
mod replay;
mod requests;
mod restore;
mod retention;
mod rights;
mod rng;
mod rules;
mod secrets;
mod security;
mod server;
mod service;
mod settling;
mod subscribers;
mod telemetry;
mod tls;
mod waiting;
mod wake_ups;
mod walkthrough;
mod watch;
mod workspaces;

#[allow(dead_code)] // its main()
#[path = "../../examples/workspace_server.rs"]
mod workspace_server;
