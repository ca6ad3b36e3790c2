//! Which processes follow the store, and how far each of them is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Who it is: no two that run at once have the same, whatever they are called.
    pub id: String,
    /// The revision that it has applied.
    pub revision: u64,
    /// The version of the program.
    pub version: &'static str,
    /// How old its last pull may be before it refuses everything.
    pub max_staleness: Duration,
}

/// A node as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Who it is.
    pub id: String,
    /// The revision that it has applied, when it said so last.
    pub revision: u64,
    /// The version of its program.
    pub version: String,
    /// How long ago that was, by the store's clock, in milliseconds.
    pub seen_ms_ago: u64,
    /// How old its last pull may be before it refuses everything, in milliseconds.
    pub max_staleness_ms: u64,
}

/// What the clocks of a node and of the store may differ in their pace, and a report may be late.
const MARGIN: u64 = 5_000;

impl Node {
    /// Whether it may still let requests pass. One that is silent may be frozen, or cut off from the store, and go on by what
    /// it knew; only after `max_staleness` it is certain to refuse everything.
    pub fn may_serve(&self) -> bool {
        self.seen_ms_ago <= self.max_staleness_ms.saturating_add(MARGIN)
    }
}
