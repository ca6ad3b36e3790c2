//! `keyward user …`: people, and whether their keys may be used. On the store itself it also helps where nobody is left who may
//! sign in.

use std::io::Read;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::console::{Console, Output, printable};
use super::exit::{Exit, Failure};
use super::place::Place;
use crate::auth::key::Secret;
use crate::auth::scope::Scope;
use crate::manage::Stored;
use crate::manage::password::Password;
use crate::manage::user::{NewUser, UserChanged, UserPatch};
use crate::manage::values::{Email, PersonName};
use crate::store::record::{UserBody, UserState};

/// The commands on users.
#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Make a user
    Create(CreateArgs),
    /// Show all users
    List,
    /// Show one
    Show(WhoArgs),
    /// Change one
    Update(UpdateArgs),
    /// Let a user do nothing, and refuse all keys of theirs
    Suspend(WhoArgs),
    /// Let a suspended user and their keys work again
    Activate(WhoArgs),
    /// Delete a user with all keys of theirs, and the keys below those
    Delete(WhoArgs),
    /// Set what a user signs in with: read from standard input, one line
    Password(WhoArgs),
    /// Print a link's ticket by which a user signs in once
    Link(LinkArgs),
}

/// Who.
#[derive(Args, Debug)]
pub(super) struct WhoArgs {
    /// The user's e-mail address or id
    user: String,
}

/// What to make.
#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    /// Where mail reaches them
    #[arg(long)]
    email: Email,
    /// What people call them
    #[arg(long)]
    name: Option<PersonName>,
    /// Where the account is kept: whoever manages users there manages it
    #[arg(long, value_parser = Scope::parse)]
    scope: Option<Scope>,
    /// Let them use the API: gives them a key, which is printed
    #[arg(long)]
    api_access: bool,
    /// Let them manage everything in their scope
    #[arg(long)]
    admin: bool,
    /// Read a password from standard input, one line
    #[arg(long)]
    password_stdin: bool,
}

/// What to change.
#[derive(Args, Debug)]
#[group(id = "change", required = true, multiple = true)]
pub(super) struct UpdateArgs {
    /// The user's e-mail address or id
    user: String,
    /// Where mail reaches them
    #[arg(long, group = "change")]
    email: Option<Email>,
    /// What people call them
    #[arg(long, group = "change")]
    name: Option<PersonName>,
    /// Let them use the API: gives them a key, if they have none
    #[arg(long, group = "change", conflicts_with = "no_api_access")]
    api_access: bool,
    /// Refuse all keys of theirs
    #[arg(long, group = "change")]
    no_api_access: bool,
}

/// Which link.
#[derive(Args, Debug)]
pub(super) struct LinkArgs {
    /// The user's e-mail address or id
    user: String,
    /// How long it is good
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    expires: Duration,
}

impl UserCommand {
    /// Whether it only looks, or needs a user who is there, so that a database that is not there must not be made.
    pub(super) fn only_looks(&self) -> bool {
        !matches!(self, Self::Create(_))
    }
}

/// Carries out a command on users.
pub(super) async fn run(
    command: UserCommand,
    place: &impl Place,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    match command {
        UserCommand::Create(args) => create(args, place, output, console).await,
        UserCommand::List => list(&place.users().await?, output, console),
        UserCommand::Show(who) => list(&[place.find_user(&who.user).await?], output, console),
        UserCommand::Update(args) => {
            let access = args.api_access.then_some(true).or(args.no_api_access.then_some(false));
            let (email, name) = (args.email, args.name.map(Some));
            let patch = UserPatch { email, name, api_access: access, ..UserPatch::default() };
            update(&args.user, patch, place, output, console).await
        }
        UserCommand::Suspend(who) => set_state(&who, UserState::Suspended, place, output, console).await,
        UserCommand::Activate(who) => set_state(&who, UserState::Active, place, output, console).await,
        UserCommand::Delete(who) => {
            let user = place.find_user(&who.user).await?;
            let keys = place.delete_user(&user.id).await?;
            console.note(format_args!("user {} deleted, and {} keys", printable(&user.body.email), keys.len()));
            Ok(Exit::Ok)
        }
        UserCommand::Password(who) => {
            let user = place.find_user(&who.user).await?;
            place.set_password(&user.id, typed()?).await?;
            console.note(format_args!("user {} has a new password", printable(&user.body.email)));
            Ok(Exit::Ok)
        }
        UserCommand::Link(args) => {
            console.must_be_heard()?;
            let user = place.find_user(&args.user).await?;
            let ticket = place.create_link(&user.id, args.expires).await?;
            console.line(ticket.as_str())?;
            console
                .note("This is the only time that it is shown. It signs in once: POST /v2/session {\"ticket\":\"…\"}");
            Ok(Exit::Ok)
        }
    }
}

async fn create(
    args: CreateArgs,
    place: &impl Place,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    if args.api_access {
        console.must_be_heard()?;
    }
    let password = args.password_stdin.then(typed).transpose()?;
    let role = args.admin.then(|| "admin".into());
    let (email, name, scope, api_access) = (args.email, args.name, args.scope, args.api_access);
    let made = place.create_user(NewUser { email, name, scope, password, api_access, role }).await?;
    console.note(format_args!("user {} created: {}", made.user.id, printable(&made.user.body.email)));
    tell(&made, output, console)
}

async fn update(
    who: &str,
    patch: UserPatch,
    place: &impl Place,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    let user = place.find_user(who).await?;
    let changed = place.update_user(&user.id, &patch).await?;
    let what = if changed.changed { "changed" } else { "like that already" };
    console.note(format_args!("user {} {what}", printable(&changed.user.body.email)));
    tell(&changed, output, console)
}

async fn set_state(
    who: &WhoArgs,
    state: UserState,
    place: &impl Place,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    update(&who.user, UserPatch { state: Some(state), ..UserPatch::default() }, place, output, console).await
}

/// A password from standard input: on a command line, others would see it.
fn typed() -> Result<Password, Failure> {
    let mut text = zeroize::Zeroizing::new(String::new());
    std::io::stdin().take(4096).read_to_string(&mut text).map_err(|why| Failure::Failed(why.to_string()))?;
    let line = text.lines().next().unwrap_or_default();
    line.parse().map_err(|why: crate::manage::values::NotAValue| Failure::Usage(why.to_string()))
}

/// A user, and the value of the key that they have got.
#[derive(Serialize)]
struct Shown<'u> {
    #[serde(flatten)]
    user: &'u Stored<UserBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'u str>,
}

fn tell(changed: &UserChanged, output: Output, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let value = changed.secret.as_ref().map(Secret::reveal);
    match (output, value) {
        (Output::Json, value) => console.json(&Shown { user: &changed.user, value })?,
        (Output::Table, Some(value)) => console.line(value)?,
        (Output::Table, None) => {}
    }
    if value.is_some() {
        console.note(format_args!("The value is that of the user's own key, {}.", changed.user.id));
    }
    Ok(Exit::Ok)
}

fn list(users: &[Stored<UserBody>], output: Output, console: &mut Console<'_>) -> Result<Exit, Failure> {
    match output {
        Output::Json => console.json_array(users.iter())?,
        Output::Table => {
            let row = |user: &Stored<UserBody>| {
                let UserBody { email, name, scope, state, api_access, .. } = &user.body;
                let state = match state {
                    UserState::Active => "active",
                    UserState::Suspended => "suspended",
                };
                let scope = scope.as_ref().map_or_else(|| "-".to_owned(), Scope::to_string);
                let name = name.as_deref().map_or_else(|| "-".to_owned(), printable);
                let access = if *api_access { "yes" } else { "no" };
                [user.id.to_string(), printable(email), name, state.to_owned(), access.to_owned(), scope]
            };
            console.table(["ID", "EMAIL", "NAME", "STATE", "API", "SCOPE"], users.iter().map(row))?;
        }
    }
    Ok(Exit::Ok)
}
