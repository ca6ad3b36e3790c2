//! `keyward key …`: what the commands are called and take. What they do is in the rooms below.

mod change;
mod create;
mod delete;
mod list;
mod reveal;
mod revoke;
mod rotate;

use clap::Subcommand;

use super::console::{Console, Output};
use super::exit::{Exit, Failure};
use super::import::{self, ImportArgs};
use super::place::Place;
use crate::auth::grant::State;

pub(super) use self::change::UpdateArgs;
pub(super) use self::create::{CreateArgs, record};
pub(super) use self::delete::DeleteArgs;
pub(super) use self::revoke::RevokeArgs;
pub(super) use self::rotate::RotateArgs;

/// The commands on keys.
#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key and print its value, once
    Create(CreateArgs),
    /// Show all keys
    List,
    /// Show one key and what is known of its values
    Show {
        /// The key
        id: String,
    },
    /// Change a key
    Update(UpdateArgs),
    /// Stop a key until it is enabled again
    Disable {
        /// The key
        id: String,
    },
    /// Let a disabled key work again
    Enable {
        /// The key
        id: String,
    },
    /// Give a key a new value and print it, once
    Rotate(RotateArgs),
    /// Stop a key for good
    Revoke(RevokeArgs),
    /// Delete a key with its values and roles, as if it had never been; what is imported again is a new key
    Delete(DeleteArgs),
    /// Print the value of a key that keeps it; each time is in the audit
    Reveal {
        /// The key
        id: String,
    },
    /// Bring in keys of another system, as they are
    Import(ImportArgs),
}

impl KeyCommand {
    /// Whether it only looks, so that a database that is not there must not be made.
    pub(super) fn only_looks(&self) -> bool {
        match self {
            Self::List | Self::Show { .. } => true,
            Self::Create(_) | Self::Import(_) => false,
            // These need a key, and in a new database there is none.
            Self::Update(_) | Self::Disable { .. } | Self::Enable { .. } | Self::Rotate(_) | Self::Revoke(_) => true,
            Self::Delete(_) | Self::Reveal { .. } => true,
        }
    }
}

/// Carries out a command on keys.
pub(super) async fn run(
    command: KeyCommand,
    place: &impl Place,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    let state = |id, state| change::StateChange { id, state };
    match command {
        KeyCommand::Create(args) => create::run(args, place, output, console).await,
        KeyCommand::List => list::all(place, output, console).await,
        KeyCommand::Show { id } => list::one(&id, place, output, console).await,
        KeyCommand::Update(args) => change::update(args, place, output, console).await,
        KeyCommand::Disable { id } => change::set_state(state(id, State::Disabled), place, output, console).await,
        KeyCommand::Enable { id } => change::set_state(state(id, State::Active), place, output, console).await,
        KeyCommand::Rotate(args) => rotate::run(args, place, output, console).await,
        KeyCommand::Revoke(args) => revoke::run(args, place, output, console).await,
        KeyCommand::Delete(args) => delete::run(args, place, output, console).await,
        KeyCommand::Reveal { id } => reveal::run(&id, place, output, console).await,
        KeyCommand::Import(args) => import::run(args, place, output, console).await,
    }
}
