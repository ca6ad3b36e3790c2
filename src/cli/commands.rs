//! The commands that look at what is managed or change it: what they are called, and that each gets what it works on.

use clap::{Args, Subcommand};

use super::audit::{self, AuditCommand};
use super::console::{Console, Output};
use super::exit::{Exit, Failure};
use super::key::{self, KeyCommand};
use super::place::Place;
use super::role::{self, BindingCommand, RoleCommand};
use super::scope::{self, ScopeCommand};
use super::server::ServerArgs;
use super::usage::{self, NodeCommand};
use super::user::{self, UserCommand};
use super::{ConfigArg, OutputArg};

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum ManageCommand {
    /// Make, show, change and import keys
    Key {
        #[command(flatten)]
        on: On,
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Make, show, suspend and resume scopes
    Scope {
        #[command(flatten)]
        on: On,
        #[command(subcommand)]
        command: ScopeCommand,
    },
    /// Show, export and verify who changed what
    Audit {
        #[command(flatten)]
        on: On,
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Make, show, change and delete users
    User {
        #[command(flatten)]
        on: On,
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Make, show, change and delete roles
    Role {
        #[command(flatten)]
        on: On,
        #[command(subcommand)]
        command: RoleCommand,
    },
    /// Give roles to users and keys, and take them
    Binding {
        #[command(flatten)]
        on: On,
        #[command(subcommand)]
        command: BindingCommand,
    },
    /// Show how often keys are used, and who still has an old value
    Usage {
        #[command(flatten)]
        on: On,
        /// The key, to see its values; without it, all keys
        key: Option<String>,
    },
    /// Show and forget the processes that follow the store
    Node {
        #[command(flatten)]
        on: On,
        #[command(subcommand)]
        command: NodeCommand,
    },
}

/// What all of them take.
#[derive(Args, Debug)]
pub(super) struct On {
    #[command(flatten)]
    pub(super) config: ConfigArg,
    #[command(flatten)]
    pub(super) server: ServerArgs,
    #[command(flatten)]
    output: OutputArg,
}

impl ManageCommand {
    /// What it works on.
    pub(super) fn on(&self) -> &On {
        let (Self::Key { on, .. }
        | Self::Scope { on, .. }
        | Self::Audit { on, .. }
        | Self::User { on, .. }
        | Self::Role { on, .. }
        | Self::Binding { on, .. }
        | Self::Usage { on, .. }
        | Self::Node { on, .. }) = self;
        on
    }

    /// How it writes data.
    pub(super) fn output(&self) -> Output {
        self.on().output.output
    }

    /// Whether it only looks, or needs something that is there, so that a database that is not there must not be made.
    pub(super) fn only_looks(&self) -> bool {
        match self {
            Self::Key { command, .. } => command.only_looks(),
            Self::Scope { command, .. } => command.only_looks(),
            Self::User { command, .. } => command.only_looks(),
            Self::Role { .. } | Self::Binding { .. } => false,
            Self::Audit { .. } | Self::Usage { .. } | Self::Node { .. } => true,
        }
    }

    /// Carries it out.
    pub(super) async fn run(self, place: &impl Place, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let output = self.output();
        match self {
            Self::Key { command, .. } => key::run(command, place, output, console).await,
            Self::Scope { command, .. } => scope::run(command, place, output, console).await,
            Self::Audit { command, .. } => audit::run(command, place, output, console).await,
            Self::User { command, .. } => user::run(command, place, output, console).await,
            Self::Role { command, .. } => role::run(command, place, output, console).await,
            Self::Binding { command, .. } => role::run_binding(command, place, output, console).await,
            Self::Usage { key, .. } => usage::run(key.as_deref(), place, output, console).await,
            Self::Node { command, .. } => usage::nodes(command, place, output, console).await,
        }
    }
}
