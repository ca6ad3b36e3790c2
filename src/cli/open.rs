//! From a config to a store that a command can work on: reads what is needed, opens the store, and waits for the end.

use std::sync::Arc;
use std::time::SystemTime;

use super::commands::ManageCommand;
use super::console::{Console, printable};
use super::exit::{Exit, Failure};
use super::key::{self, KeyCommand};
use crate::auth::Locksmith;
use crate::auth::grant::Timestamp;
use crate::config::{self, Finding, KeyStoreConfig, Overrides};
use crate::manage::Session;
use crate::store::{AnyStore, Location};

/// What a command knows of the process that it runs in.
pub(super) struct World {
    /// What is given beside the config file.
    pub(super) overrides: Overrides,
    /// When it was started.
    pub(super) now: Timestamp,
}

impl World {
    /// This process, and these `--set` flags.
    pub(super) fn of_process(set: Vec<(String, String)>) -> Self {
        Self { overrides: Overrides::of_process(set), now: SystemTime::now().into() }
    }

    /// Who the audit will say it was: the command line, and the user of the system if there is one.
    pub(super) fn actor(&self) -> String {
        let user = ["USER", "LOGNAME"].into_iter().find_map(|name| self.variable(name));
        user.map_or_else(|| "cli".to_owned(), |user| format!("cli:{}", printable(user)))
    }

    /// An environment variable that is not empty.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        let value = self.overrides.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        value.filter(|value| !value.is_empty())
    }

    pub(super) fn session(&self, locksmith: Arc<Locksmith>, store: AnyStore) -> Session<AnyStore> {
        Session { store, locksmith, actor: self.actor(), now: self.now }
    }
}

/// Carries out a command on the store that a config names.
pub(super) fn manage(command: ManageCommand, world: &World, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let KeyStoreConfig { locksmith, store, warnings } =
        config::load_for_keys(&command.on().config.config, &world.overrides)?;
    warn(&warnings, console);
    let output = command.output();
    match command {
        ManageCommand::Key { command: KeyCommand::Create(args), .. } if args.record => {
            key::record(args, &locksmith, (&world.actor(), world.now), output, console)
        }
        command => wait(async {
            let session = opened(locksmith, &store, command.only_looks(), world, console).await?;
            command.run(&session, console).await
        }),
    }
}

/// Says what is doubtful about a config.
pub(super) fn warn(warnings: &[Finding], console: &mut Console<'_>) {
    for warning in warnings {
        console.note(format_args!("warning: {warning}"));
    }
}

/// The store that a command works on. One that was expected to be there, and is not, must not come into being unnoticed.
async fn opened(
    locksmith: Arc<Locksmith>,
    store: &Location,
    only_looks: bool,
    world: &World,
    console: &mut Console<'_>,
) -> Result<Session<AnyStore>, Failure> {
    if !only_looks && store.is_missing() {
        console.note(format_args!("there is no {store} yet: a new, empty store is made"));
    }
    let store = open(store, &locksmith, only_looks, console).await?;
    Ok(world.session(locksmith, store))
}

/// Opens a store. Commands that only look do not make a database where there is none: the path is wrong more often than
/// the database is new.
pub(super) async fn open(
    location: &Location,
    locksmith: &Locksmith,
    only_looks: bool,
    console: &mut Console<'_>,
) -> Result<AnyStore, Failure> {
    let check = locksmith.pepper.check();
    if only_looks {
        return Ok(AnyStore::open_existing(location, check)?);
    }
    let store = AnyStore::open(location, check)?;
    if store.prepare().await? {
        console.note(format_args!("made the tables of a new, empty store in {location}"));
    }
    Ok(store)
}

/// Runs a command to its end.
pub(super) fn wait(command: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
    runtime.block_on(command)
}
