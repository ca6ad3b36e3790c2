//! Waiting until a change holds everywhere.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::store::ledger::nodes::Node;
use crate::store::ledger::{Ledger, LedgerError};

/// How often the nodes are looked at: often at first, since most are there within a few milliseconds.
const SOON: Duration = Duration::from_millis(10);
const LATER: Duration = Duration::from_millis(100);

/// How far the nodes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waited {
    /// How many have applied the revision.
    pub applied: usize,
    /// How many there are that may let requests pass.
    pub live: usize,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// Those that have not applied it, as far as anybody knows; nobody to whom they are not shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub laggards: Vec<Node>,
}

impl Waited {
    /// Whether nobody lets pass any more what the revision took away. Where nobody is known, nothing is.
    pub fn is_everywhere(&self) -> bool {
        self.live > 0 && self.applied == self.live
    }
}

/// Waits until every node that may let requests pass has applied a revision, or the time is over. It is never too early: a
/// node makes itself known before it reads the store for the first time, and is not ready while it cannot; one that is silent
/// counts until it is certain to refuse everything.
///
/// # Errors
/// When the store cannot be read, or keeps no nodes.
pub async fn applied_everywhere(ledger: &impl Ledger, revision: u64, limit: Duration) -> Result<Waited, LedgerError> {
    let began = Instant::now();
    let mut pause = SOON;
    loop {
        let nodes: Vec<Node> = ledger.nodes().await?.into_iter().filter(Node::may_serve).collect();
        let live = nodes.len();
        let laggards: Vec<Node> = nodes.into_iter().filter(|node| node.revision < revision).collect();
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let waited = Waited { applied: live - laggards.len(), live, ms, laggards };
        let left = limit.saturating_sub(began.elapsed());
        if waited.is_everywhere() || left.is_zero() {
            return Ok(waited);
        }
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 3 / 2).min(LATER);
    }
}
