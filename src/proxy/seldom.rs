//! Lines that anybody on the net can cause are written once in a while, and say how many were not.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often, at most.
const PERIOD: Duration = Duration::from_secs(10);

/// When a kind of line was written last, and how many were not since then.
#[derive(Default)]
pub(super) struct Seldom(Mutex<(Option<Instant>, u64)>);

impl Seldom {
    /// Whether a line may be written now; then with the number of those that were not.
    pub(super) fn turn(&self, now: Instant) -> Option<u64> {
        // A panic elsewhere cannot leave it half changed.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, unsaid) = &mut *kept;
        if last.is_some_and(|last| now.saturating_duration_since(last) < PERIOD) {
            *unsaid += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_a_while_says_how_many_there_were() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let at = |seconds| seldom.turn(start + Duration::from_secs(seconds));
        assert_eq!([at(0), at(1), at(9), at(10), at(11), at(25)], [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
