//! Ctrl-C during an import: the first stops it after the batch that is under way, the second at once. Either way the
//! store has whole batches only.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::cli::exit::Exit;

/// Whether somebody pressed Ctrl-C.
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on, on a thread of its own: the import may be busy reading.
    pub(super) fn listen() -> io::Result<Self> {
        let requested = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let flag = Arc::clone(&requested);
        let wait = async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                flag.store(true, Ordering::Relaxed);
                let _ = writeln!(io::stderr(), "stopping after this batch; Ctrl-C again stops at once");
            }
            if tokio::signal::ctrl_c().await.is_ok() {
                #[expect(clippy::disallowed_methods, reason = "the one who presses twice does not want to wait")]
                std::process::exit(Exit::Interrupted.code().into());
            }
        };
        thread::Builder::new().name("interrupt".to_owned()).spawn(move || runtime.block_on(wait))?;
        Ok(Self(requested))
    }

    /// A flag that somebody else holds.
    #[cfg(test)]
    pub(super) fn of(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }

    /// Whether to stop.
    pub(super) fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
