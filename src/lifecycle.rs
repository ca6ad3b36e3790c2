//! From start to exit: what phase the process is in, and who has asked it to stop.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

/// Where the process is in its life. It only ever moves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not all listeners are bound yet.
    Starting,
    /// At work.
    Serving,
    /// Asked to stop: readiness fails, new connections are still taken.
    Leaving,
    /// Finishing what is in flight; no new connections.
    Draining,
}

/// Moves the process through its phases, and tells everyone.
#[derive(Clone)]
pub struct Lifecycle {
    phase: Arc<watch::Sender<Phase>>,
    troubles: Arc<Mutex<BTreeMap<&'static str, String>>>,
    withheld: Arc<Mutex<Option<&'static str>>>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            phase: Arc::new(watch::Sender::new(Phase::Starting)),
            troubles: Arc::default(),
            withheld: Arc::default(),
        }
    }
}

impl Lifecycle {
    /// Moves on to a phase; never back.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let later = phase > *current;
            *current = phase.max(*current);
            later
        });
    }

    /// The present phase.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Resolves once a phase has been reached or passed.
    pub async fn reached(&self, phase: Phase) {
        let mut receiver = self.phase.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = receiver.wait_for(|current| *current >= phase).await;
    }

    /// A part of the process is in trouble, or (`None`) no longer. For people who look, not for decisions.
    pub fn report(&self, part: &'static str, trouble: Option<String>) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(trouble) => troubles.insert(part, trouble),
            None => troubles.remove(part),
        };
    }

    /// Why nobody should send requests here, though they would be answered; `None` when nothing is against it any more.
    pub fn withhold(&self, why: Option<&'static str>) {
        *self.withheld.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Why nobody should send requests here, if nobody should.
    pub fn withheld(&self) -> Option<&'static str> {
        *self.withheld.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in trouble now.
    pub fn troubles(&self) -> Vec<(&'static str, String)> {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.iter().map(|(part, trouble)| (*part, trouble.clone())).collect()
    }
}

/// Asks for the config to be read again.
#[derive(Clone)]
pub struct Reloads(mpsc::Sender<ReloadRequest>);

/// Where somebody waits to hear what came of a reload: what is in force now, or why nothing changed.
pub type ReloadRequest = oneshot::Sender<Result<String, String>>;

impl Reloads {
    /// A place to ask, and where the questions arrive.
    pub fn new() -> (Self, mpsc::Receiver<ReloadRequest>) {
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), receiver)
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When nothing changed: with the reasons, a line each.
    pub async fn ask(&self) -> Result<String, String> {
        let (sender, answer) = oneshot::channel();
        let gone = |()| Err("the process is stopping".to_owned());
        match self.0.send(sender).await {
            Ok(()) => answer.await.unwrap_or_else(|_| gone(())),
            Err(_) => gone(()),
        }
    }
}

/// Resolves on SIGTERM or SIGINT, with the signal's name.
///
/// # Errors
/// When the process may not listen to signals.
pub async fn stop_signal() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_only_move_on() {
        let lifecycle = Lifecycle::default();
        lifecycle.enter(Phase::Draining);
        lifecycle.enter(Phase::Serving);
        assert_eq!(lifecycle.phase(), Phase::Draining);
        lifecycle.reached(Phase::Leaving).await;
    }
}
