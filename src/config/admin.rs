//! The `admin` section: where the management API listens, and whose signed reports it takes.

use std::net::SocketAddr;
use std::path::Path;

use super::place::OptionPath;
use super::report::Report;
use super::{raw, values};
use crate::admin::Config;
use crate::admin::leaks::signed::PublicKeys;
use crate::admin::leaks::{self, Action};

/// Reads the section, as far as its listener is wanted.
pub(super) fn admin(
    raw: Option<&raw::Admin>,
    listen: Option<SocketAddr>,
    (base, reads_files): (&Path, bool),
    report: &mut Report,
) -> Option<Config> {
    let raw = raw?;
    let url = report.take(&OptionPath::of(["admin", "url"]), values::base_url(&raw.url)).flatten();
    let leaks = leaks(&raw.leaks.keys, raw.leaks.action, (base, reads_files), report);
    Some(Config { listen: listen?, url, leaks })
}

/// The keys are read to see that they are some; each report reads them anew.
fn leaks(
    file: &str,
    action: raw::LeakAction,
    (base, reads_files): (&Path, bool),
    report: &mut Report,
) -> Option<leaks::Config> {
    if file.is_empty() {
        return None;
    }
    let keys = base.join(file);
    if reads_files {
        let read = std::fs::read(&keys).map_err(|error| format!("{} cannot be read: {error}", keys.display()));
        let parsed =
            read.and_then(|text| PublicKeys::parse(&text).map_err(|error| format!("{} {error}", keys.display())));
        report.take(&OptionPath::of(["admin", "leaks", "keys"]), parsed)?;
    }
    let action = match action {
        raw::LeakAction::Revoke => Action::Revoke,
        raw::LeakAction::Flag => Action::Flag,
    };
    Some(leaks::Config { keys, action })
}
