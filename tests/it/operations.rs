//! What operators do to a deployment that is in use, and what happens to it: nobody who stands at a gate need know.

mod failover;
mod load;
mod restarts;
mod upgrades;
