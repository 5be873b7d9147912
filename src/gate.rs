//! The client side: a gate in front of an operation, which lets nobody through but on the authority's word.
