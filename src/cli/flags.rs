//! What only the command line writes its own way; the rest is in `manage::values`.

use clap::ValueEnum;

use super::exit::Failure;
use crate::auth::grant::{Environment, Timestamp};
use crate::manage::values::Expiry;

/// The world of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Env {
    /// Production
    Live,
    /// Sandbox
    Test,
}

impl From<Env> for Environment {
    fn from(env: Env) -> Self {
        match env {
            Env::Live => Self::Live,
            Env::Test => Self::Test,
        }
    }
}

/// The time that `--expires` means.
pub(crate) fn end(expiry: Expiry, now: Timestamp) -> Result<Timestamp, Failure> {
    expiry.after(now).map_err(|passed| Failure::Usage(format!("--expires {passed}; `keyward key disable` stops a key")))
}
