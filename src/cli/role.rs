//! `keyward role …` and `keyward binding …`: what people and keys may manage, and where.

use clap::{Args, Subcommand};
use serde_json::json;

use super::console::{Console, Output};
use super::exit::{Exit, Failure};
use super::place::Place;
use crate::auth::authority::{BuiltIn, Permission};
use crate::auth::scope::Scope;
use crate::manage::Stored;
use crate::manage::role::NewRole;
use crate::store::record::{BindingBody, Subject};

/// The commands on roles.
#[derive(Debug, Subcommand)]
pub(super) enum RoleCommand {
    /// Make a role
    Create(RoleArgs),
    /// Show all roles, those that are built in too
    List,
    /// Put other permissions in place of those that a role has
    Update(RoleArgs),
    /// Delete a role, and take it from all who have it
    Delete {
        /// Its name
        name: String,
    },
}

/// What a role shall be.
#[derive(Args, Debug)]
pub(super) struct RoleArgs {
    /// Its name
    name: String,
    /// What it permits, such as keys:read,keys:write
    #[arg(long = "permission", value_name = "PERMISSION", required = true, value_delimiter = ',', value_parser = permission)]
    permissions: Vec<Permission>,
    /// Let it look only, whatever it permits
    #[arg(long)]
    observer: bool,
}

/// The commands on bindings.
#[derive(Debug, Subcommand)]
pub(super) enum BindingCommand {
    /// Give somebody a role
    Create {
        /// Who: user:ID or key:ID
        #[arg(value_parser = subject)]
        subject: Subject,
        /// Which role
        role: String,
        /// Where, and in all below; everywhere if left out
        #[arg(long, value_parser = Scope::parse)]
        scope: Option<Scope>,
    },
    /// Show who has which role
    List,
    /// Take a role from somebody
    Delete {
        /// The id of the binding
        id: String,
    },
}

fn permission(text: &str) -> Result<Permission, String> {
    let all = || Permission::ALL.map(Permission::label).join(", ");
    Permission::parse(text).ok_or_else(|| format!("permissions are {}", all()))
}

fn subject(text: &str) -> Result<Subject, &'static str> {
    Subject::parse(text).ok_or("write user:ID or key:ID")
}

/// Carries out a command on roles.
pub(super) async fn run(
    command: RoleCommand,
    place: &impl Place,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    let (args, replace) = match command {
        RoleCommand::List => return list(place, output, console).await,
        RoleCommand::Delete { name } => {
            place.delete_role(&name).await?;
            console.note(format_args!("role {name} deleted"));
            return Ok(Exit::Ok);
        }
        RoleCommand::Create(args) => (args, false),
        RoleCommand::Update(args) => (args, true),
    };
    let RoleArgs { name, permissions, observer } = args;
    let role = place.put_role(NewRole { name, permissions, observer }, replace).await?;
    console.note(format_args!("role {} {}", role.id, if replace { "changed" } else { "created" }));
    if output == Output::Json {
        console.json(&role)?;
    }
    Ok(Exit::Ok)
}

async fn list(place: &impl Place, output: Output, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let roles = place.roles().await?;
    let words = |permissions: &mut dyn Iterator<Item = Permission>| -> Vec<&'static str> {
        permissions.map(Permission::label).collect()
    };
    let own = |role: BuiltIn| (role.name(), role == BuiltIn::Observer, words(&mut role.permissions().iter()));
    let built_in = BuiltIn::ALL.into_iter().map(own);
    let kept =
        roles.iter().map(|role| (&*role.id, role.body.observer, words(&mut role.body.permissions.iter().copied())));
    let rows: Vec<(&str, bool, Vec<&str>)> = built_in.chain(kept).collect();
    match output {
        Output::Json => console.json_array(
            rows.iter().map(|(id, observer, all)| json!({ "id": id, "observer": observer, "permissions": all })),
        )?,
        Output::Table => {
            let row = |(id, observer, all): &(&str, bool, Vec<&str>)| {
                [(*id).to_owned(), if *observer { "yes" } else { "no" }.to_owned(), all.join(" ")]
            };
            console.table(["NAME", "OBSERVER", "PERMISSIONS"], rows.iter().map(row))?;
        }
    }
    Ok(Exit::Ok)
}

/// Carries out a command on bindings.
pub(super) async fn run_binding(
    command: BindingCommand,
    place: &impl Place,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    match command {
        BindingCommand::Create { subject, role, scope } => {
            let binding = place.bind(subject, &role, scope).await?;
            console.note(format_args!("{} has role {}: binding {}", binding.body.subject, role, binding.id));
            if output == Output::Json {
                console.json(&binding)?;
            }
        }
        BindingCommand::Delete { id } => {
            let binding = place.unbind(&id).await?;
            console.note(format_args!("{} has role {} no more", binding.body.subject, binding.body.role));
        }
        BindingCommand::List => {
            let bindings = place.bindings().await?;
            let row = |binding: &Stored<BindingBody>| {
                let BindingBody { subject, role, scope, .. } = &binding.body;
                let scope = scope.as_ref().map_or_else(|| "-".to_owned(), Scope::to_string);
                [binding.id.to_string(), subject.to_string(), role.to_string(), scope]
            };
            match output {
                Output::Json => console.json_array(bindings.iter())?,
                Output::Table => console.table(["ID", "SUBJECT", "ROLE", "SCOPE"], bindings.iter().map(row))?,
            }
        }
    }
    Ok(Exit::Ok)
}
