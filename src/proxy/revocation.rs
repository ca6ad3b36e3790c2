//! What has begun does not go on when its key is no longer good: streams, WebSockets, uploads and long answers are judged
//! again, four times a second, if anything has changed.

use std::time::Instant;

use super::Shared;
use super::watch::Sweeper;
use crate::auth::good_until;
use crate::auth::grant::Timestamp;

/// What the last sweep knew.
pub(super) struct Judged {
    /// The replica's version.
    version: u64,
    /// When the first of what was good ends by itself.
    until: Timestamp,
}

impl Default for Judged {
    fn default() -> Self {
        Self { version: 0, until: Timestamp::NEVER }
    }
}

impl Judged {
    /// Ends what is no longer good. As long as nothing changes, only what has begun since the last sweep is looked up.
    pub(super) fn sweep(&mut self, sweeper: &Sweeper, shared: &Shared) {
        let started = Instant::now();
        // Before the view: what changes in between is judged twice.
        let version = shared.replica.version();
        let (view, now) = (shared.replica.view(started), sweeper.wall_at(started));
        let all = version != self.version || self.until <= now;
        if all {
            *self = Self { version, until: Timestamp::NEVER };
        }
        sweeper.each(|watch| {
            let Some(digest) = watch.unjudged(all) else { return };
            match good_until(&view, &digest, watch.client(), now) {
                Ok(until) => self.until = self.until.min(until),
                Err(denial) => watch.withdraw(denial),
            }
        });
    }
}
