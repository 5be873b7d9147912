//! The history check: a run of many callers against servers that are killed, stopped and cut off, recorded and
//! then held against the promises.

mod check;
mod mutations;
mod record;
mod story;
