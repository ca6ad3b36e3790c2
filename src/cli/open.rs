//! From a config to a store that a command can work on: reads what is needed, opens the store, and waits for the end.

use std::path::Path;
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
use crate::store::{AnyStore, Location, StoreError};

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

/// Carries out a command by a server, or on the store that a config names.
pub(super) fn manage(command: ManageCommand, world: &World, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let server = &command.on().server;
    if let Some(url) = &server.server {
        if matches!(&command, ManageCommand::Key { command: KeyCommand::Create(args), .. } if args.record) {
            let why = "--record writes for a store of files, with its pepper: run it with --config where that is";
            return Err(Failure::Usage(why.to_owned()));
        }
        let server = server.open(url, world)?;
        return wait(command.run(&server, console));
    }
    if server.says_anything() {
        return Err(Failure::Usage("--key-file, --ca and --allow-http are for --server".to_owned()));
    }
    let path = command.on().config.config.clone();
    let KeyStoreConfig { locksmith, store, warnings } = config::load_for_keys(&path, &world.overrides)?;
    warn(&warnings, console);
    let output = command.output();
    match command {
        ManageCommand::Key { command: KeyCommand::Create(args), .. } if args.record => {
            key::record(args, &locksmith, (&world.actor(), world.now), output, console)
        }
        command => wait(async {
            let session = opened(locksmith, (&path, &store), command.only_looks(), world).await?;
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

async fn opened(
    locksmith: Arc<Locksmith>,
    (config, location): (&Path, &Location),
    only_looks: bool,
    world: &World,
) -> Result<Session<AnyStore>, Failure> {
    let store = open(config, location, &locksmith)?;
    if !only_looks {
        store.bring_up().await?;
    }
    Ok(world.session(locksmith, store))
}

/// Opens the store that a command works on. One that was expected to be there, and is not, must not come into being: a
/// running `serve` would follow it, and refuse everybody.
pub(super) fn open(config: &Path, location: &Location, locksmith: &Locksmith) -> Result<AnyStore, Failure> {
    if location.is_missing() {
        let config = config.display();
        let why = format!(
            "there is no such file; `keyward init --config {config}` makes a new, empty store; where there was one, put a \
             backup in its place"
        );
        return Err(Failure::Store(StoreError::Unavailable { store: location.to_string(), why }));
    }
    Ok(AnyStore::open(location, locksmith.pepper.check())?)
}

/// Runs a command to its end.
pub(super) fn wait(command: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
    runtime.block_on(command)
}
