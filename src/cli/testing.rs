//! What the tests of the commands share: a console that remembers, and commands from words.

use std::sync::Arc;

use clap::Parser;

use super::commands::ManageCommand;
use super::console::{Console, Output};
use super::exit::{Exit, Failure};
use super::key::KeyCommand;
use crate::manage::Session;
pub(super) use crate::manage::testing::{MemoryStore, locksmith, noon};

/// A store, and what the commands on it print.
pub(super) struct Bench {
    /// What the commands work with.
    pub(super) session: Session<MemoryStore>,
}

/// How a command ended, and what it printed.
#[derive(Debug)]
pub(super) struct Ran {
    /// Its exit code.
    pub(super) code: u8,
    /// Its data.
    pub(super) out: String,
    /// Everything else, its failure included.
    pub(super) err: String,
}

impl Ran {
    /// Its data as JSON.
    #[track_caller]
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

/// Runs one command with a console that remembers.
pub(super) fn remember(run: impl FnOnce(&mut Console<'_>) -> Result<Exit, Failure>) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let result = run(&mut Console::new(&mut out, &mut err));
    let (code, failure) = match result {
        Ok(exit) => (exit.code(), String::new()),
        Err(failure) => (Exit::from(&failure).code(), failure.to_string()),
    };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code, out: text(out), err: text(err) + &failure }
}

impl Bench {
    /// An empty store.
    pub(super) fn new() -> Self {
        let (store, locksmith, actor) = (MemoryStore::default(), Arc::new(locksmith()), "cli:ann".to_owned());
        Self { session: Session { store, locksmith, actor, now: noon() } }
    }

    /// Runs `keyward key …`; words are apart by spaces.
    #[track_caller]
    pub(super) fn key(&self, words: &str, output: Output) -> Ran {
        let command: KeyCommand = key_command(words);
        remember(|console| block_on(super::key::run(command, &self.session, output, console)))
    }

    /// Runs `keyward scope …`.
    #[track_caller]
    pub(super) fn scope(&self, words: &str, output: Output) -> Ran {
        let ManageCommand::Scope { command, .. } = command(&format!("scope {words}")) else { panic!("{words}") };
        remember(|console| block_on(super::scope::run(command, &self.session, output, console)))
    }

    /// The id of a new key, made with these words.
    #[track_caller]
    pub(super) fn create(&self, words: &str) -> String {
        let ran = self.key(&format!("create {words}"), Output::Json);
        ran.json()["id"].as_str().unwrap().to_owned()
    }
}

/// The command that these words are; they are apart by spaces.
#[track_caller]
fn command(words: &str) -> ManageCommand {
    let cli = super::Cli::try_parse_from(["keyward"].into_iter().chain(words.split_whitespace()));
    match cli.unwrap_or_else(|error| panic!("{words}: {error}")).command {
        super::Command::Manage(command) => command,
        other => panic!("{other:?}"),
    }
}

/// The command of `keyward key` that these words are.
#[track_caller]
pub(super) fn key_command(words: &str) -> KeyCommand {
    let ManageCommand::Key { command, .. } = command(&format!("key {words}")) else { panic!("{words}") };
    command
}

/// The command of `keyward audit` that these words are.
#[track_caller]
pub(super) fn audit_command(words: &str) -> super::audit::AuditCommand {
    let ManageCommand::Audit { command, .. } = command(&format!("audit {words}")) else { panic!("{words}") };
    command
}

/// Runs a future on a thread of its own making.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
