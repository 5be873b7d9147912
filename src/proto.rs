//! The contract, as generated from `proto/approvals/v1/approvals.proto`.

pub mod json;

pub use contract::*;

/// The contract's descriptors, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/approvals.bin"));

#[allow(missing_docs, clippy::all, clippy::unwrap_used)]
mod contract {
    tonic::include_proto!("approvals.v1");
}
