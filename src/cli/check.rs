//! `keyward check`: reads what `serve` would read and opens what it would open, without serving.

use std::path::Path;

use super::console::{Console, grouped, printable};
use super::exit::{Exit, Failure};
use super::open::{World, open, wait, warn};
use crate::auth::grant::State;
use crate::config;
use crate::manage::{Everything, Session};

/// Checks a config and its store.
pub(super) fn run(path: &Path, world: &World, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let config = config::load(path, &world.overrides)?;
    warn(&config.warnings, console);
    console.line(format_args!("ok  config {}", path.display()))?;
    wait(async {
        let store = open(path, &config.store, &config.locksmith)?;
        let session = Session { store, locksmith: config.locksmith, actor: world.actor(), now: world.now };
        let everything = session.everything().await?;
        console.line(format_args!("ok  store {} at revision {}", config.store, everything.revision))?;
        counts(&everything, console)
    })
}

/// Says what is in a store; a record that cannot be read is a failure, since it is meant to grant something.
fn counts(everything: &Everything, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let active = everything.keys.iter().filter(|key| key.body.state == State::Active).count();
    let counts = [everything.keys.len(), active, everything.secrets, everything.scopes.len()];
    let [keys, active, secrets, scopes] = counts.map(|count| grouped(count as u64));
    console.line(format_args!("ok  keys {keys} (active {active}), secrets {secrets}, scopes {scopes}"))?;
    for why in &everything.unreadable {
        console.note(format_args!("error: {}; it grants nothing", printable(why)));
    }
    Ok(if everything.unreadable.is_empty() { Exit::Ok } else { Exit::Failed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::{noon, remember};
    use crate::config::Overrides;

    #[test]
    fn a_file_that_vouches_for_the_database_is_looked_for_beside_the_config_and_missed_aloud() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("keyward.yaml");
        std::fs::write(folder.path().join("pepper"), "07".repeat(32)).unwrap();
        let text = "{ version: 1, proxy: { listen: '127.0.0.1:0', upstream: 'http://127.0.0.1:9' }, keys: { brand: kw, \
                    pepper: { file: pepper } }, store: 'postgres://kw:hunter2@db/keys?sslmode=verify-full&sslrootcert=ca.pem' }";
        std::fs::write(&config, text).unwrap();
        let world = World { overrides: Overrides::default(), now: noon() };
        let said = |why: &str| {
            let checked = remember(|console| run(&config, &world, console));
            let place = folder.path().join("ca.pem").display().to_string();
            assert!(checked.code == 7 && checked.err.contains(&format!("sslrootcert {place} {why}")), "{checked:?}");
            assert!(!checked.err.contains("hunter2"), "{checked:?}");
        };
        said("cannot be read: ");
        std::fs::write(folder.path().join("ca.pem"), "nothing").unwrap();
        said("has no certificate in PEM form");
    }
}
