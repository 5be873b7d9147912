//! The history check: many callers against servers that are killed, stopped and cut off from their database, all
//! of it recorded, and then held against the promises by functions that do nothing else.

pub mod check;
pub mod client;
mod mutations;
mod nemesis;
pub mod outcome;
pub mod record;
mod run;
mod story;
