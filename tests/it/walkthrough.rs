//! walkthrough
