//! `keyward scope …`: the tree that keys act in. Suspending a scope stops every key in it and below with one change.

use clap::Subcommand;

use super::console::{Console, Output};
use super::exit::{Exit, Failure};
use super::place::Place;
use crate::auth::scope::Scope;
use crate::manage::Stored;
use crate::store::record::{ScopeBody, ScopeState};

/// The commands on scopes.
#[derive(Debug, Subcommand)]
pub(super) enum ScopeCommand {
    /// Make a scope, and what is missing above it
    Create {
        /// Its path, such as organization:acme/project:p1
        #[arg(value_parser = Scope::parse)]
        scope: Scope,
    },
    /// Show all scopes
    List,
    /// Stop all keys in a scope and below it
    Suspend {
        /// Its path
        #[arg(value_parser = Scope::parse)]
        scope: Scope,
    },
    /// Let the keys of a suspended scope work again
    Resume {
        /// Its path
        #[arg(value_parser = Scope::parse)]
        scope: Scope,
    },
}

impl ScopeCommand {
    /// Whether it only looks, or needs a scope that is there, so that a database that is not there must not be made.
    pub(super) fn only_looks(&self) -> bool {
        match self {
            Self::Create { .. } => false,
            Self::List | Self::Suspend { .. } | Self::Resume { .. } => true,
        }
    }
}

/// Carries out a command on scopes.
pub(super) async fn run(
    command: ScopeCommand,
    place: &impl Place,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    match command {
        ScopeCommand::Create { scope } => create(&scope, place, output, console).await,
        ScopeCommand::List => list(place, output, console).await,
        ScopeCommand::Suspend { scope } => set_state(&scope, ScopeState::Suspended, place, output, console).await,
        ScopeCommand::Resume { scope } => set_state(&scope, ScopeState::Active, place, output, console).await,
    }
}

async fn create(scope: &Scope, place: &impl Place, output: Output, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let created = place.create_scope(scope).await?;
    for scope in &created.made {
        console.note(format_args!("scope {scope} created"));
    }
    tell(&created.scope, output, console)
}

async fn list(place: &impl Place, output: Output, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let scopes = place.scopes().await?;
    match output {
        Output::Json => console.json_array(scopes.values())?,
        Output::Table => {
            let row = |scope: &Stored<ScopeBody>| {
                let ScopeBody { state, created_time } = scope.body;
                [scope.id.to_string(), label(state).to_owned(), created_time.to_string()]
            };
            console.table(["SCOPE", "STATE", "CREATED"], scopes.values().map(row))?;
        }
    }
    Ok(Exit::Ok)
}

async fn set_state(
    scope: &Scope,
    state: ScopeState,
    place: &impl Place,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    let (stored, is_new) = place.set_scope_state(scope, state).await?;
    if is_new {
        match state {
            ScopeState::Suspended => {
                console.note(format_args!("scope {scope} is suspended, and so are the keys in it and below"));
            }
            ScopeState::Active => console
                .note(format_args!("scope {scope} is active; keys in it and below work again that nothing else stops")),
        }
    } else {
        console.note(format_args!("scope {scope} is {} already", label(state)));
    }
    tell(&stored, output, console)
}

fn tell(scope: &Stored<ScopeBody>, output: Output, console: &mut Console<'_>) -> Result<Exit, Failure> {
    match output {
        Output::Table => {}
        Output::Json => console.json(scope)?,
    }
    Ok(Exit::Ok)
}

const fn label(state: ScopeState) -> &'static str {
    match state {
        ScopeState::Active => "active",
        ScopeState::Suspended => "suspended",
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::console::Output;
    use crate::cli::testing::Bench;

    #[test]
    fn a_scope_comes_with_all_above_it() {
        let bench = Bench::new();
        let ran = bench.scope("create domain:d/organization:acme", Output::Json);
        assert_eq!((ran.code, &ran.json()["id"]), (0, &"domain:d/organization:acme".into()));
        assert_eq!(ran.err, "scope domain:d created\nscope domain:d/organization:acme created\n");
        assert_eq!(bench.scope("create domain:d", Output::Table).code, 5);
        assert_eq!(
            bench.scope("list", Output::Table).out,
            "SCOPE                       STATE   CREATED\n\
             domain:d                    active  2026-11-22T12:00:00.000Z\n\
             domain:d/organization:acme  active  2026-11-22T12:00:00.000Z\n"
        );
        assert_eq!(bench.scope("list", Output::Json).json()[1]["state"], "active");
    }

    #[test]
    fn a_scope_is_suspended_and_resumed() {
        let bench = Bench::new();
        bench.scope("create organization:acme", Output::Table);
        for (words, code, state) in [
            ("suspend organization:acme", 0, "suspended"),
            ("suspend organization:acme", 0, "suspended"),
            ("resume organization:acme", 0, "active"),
            ("suspend organization:other", 4, "active"),
        ] {
            assert_eq!(bench.scope(words, Output::Table).code, code, "{words}");
            assert_eq!(bench.scope("list", Output::Json).json()[0]["state"], state, "{words}");
        }
        let actions: Vec<_> = bench.session.store.commits().iter().map(|commit| commit.action).collect();
        assert_eq!(actions, ["scope.create", "scope.suspend", "scope.resume"]);
        for (conflicts, code) in [(2, 0), (3, 5)] {
            bench.scope("resume organization:acme", Output::Table);
            bench.session.store.fail_commits(conflicts);
            assert_eq!(bench.scope("suspend organization:acme", Output::Table).code, code);
        }
    }
}
