//! `keyward init`: a first config, a pepper and an empty store; or, for a config that is there, just the store that it names.
//! Nothing that is there is touched.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::console::Console;
use super::exit::{Exit, Failure};
use super::open::{World, wait, warn};
use crate::auth::Locksmith;
use crate::auth::digest::Pepper;
use crate::config::{self, Finding, KeyStoreConfig, Place};
use crate::manage::user::NewUser;
use crate::manage::values::Email;
use crate::store::{AnyStore, Location, StoreError};

/// What `keyward init` takes.
#[derive(Args, Debug)]
pub(super) struct InitArgs {
    /// The folder for all of it
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The config file; the rest is put beside it. If it is there, it stays, and only its store is made
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    config: Option<PathBuf>,
    /// The server behind; http://127.0.0.1:9000 if not given
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Where keys will be: sqlite:PATH, or postgres://USER@HOST/DATABASE, where the tables are made too. A URL with a
    /// password is better off in the environment, as KEYWARD_STORE
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// The e-mail address of a first user, who may manage everything: prints the ticket of a one-time link
    #[arg(long, value_name = "EMAIL")]
    admin: Option<Email>,
}

/// How long a first admin has to come in; `keyward user link` makes another way.
const FIRST_LINK: Duration = Duration::from_secs(60 * 60);

/// The server behind of those who name none.
const UPSTREAM: &str = "http://127.0.0.1:9000";

/// The store of those who name none.
const DATABASE: &str = "sqlite:./keyward.db";

impl InitArgs {
    fn config(&self, world: &World) -> PathBuf {
        let in_folder = self.dir.as_ref().map(|dir| dir.join("keyward.yaml"));
        let named = || self.config.clone().or_else(|| world.variable("KEYWARD_CONFIG").map(PathBuf::from));
        in_folder.or_else(named).unwrap_or_else(|| "keyward.yaml".into())
    }

    /// Where keys will be, and what the config shall say of it: nothing, if the environment does.
    fn store<'a>(&'a self, world: &'a World, base: &Path) -> Result<(Location, Option<&'a str>), Failure> {
        let (by, text, written) = match (self.store.as_deref(), world.variable("KEYWARD_STORE")) {
            (Some(_), Some(_)) => {
                let why = "--store: KEYWARD_STORE in the environment overrules it; use one of them";
                return Err(Failure::Usage(why.to_owned()));
            }
            (None, Some(variable)) => ("KEYWARD_STORE", variable, None),
            (flag, None) => ("--store", flag.unwrap_or(DATABASE), Some(flag.unwrap_or(DATABASE))),
        };
        let store = Location::parse(text, base).map_err(|error| Failure::Usage(format!("{by}: {error}")))?;
        match store {
            Location::File(_) => Err(Failure::Usage(format!("{by}: a file: store is made by what writes it"))),
            Location::Sqlite(_) | Location::Postgres(_) => Ok((store, written)),
        }
    }
}

/// Makes the files, and the store.
pub(super) fn run(args: &InitArgs, world: &World, console: &mut Console<'_>) -> Result<Exit, Failure> {
    if args.admin.is_some() {
        console.must_be_heard()?;
    }
    let config = args.config(world);
    if config.is_file() {
        return store_of(&config, args, world, console);
    }
    let folder = config.parent().unwrap_or(Path::new(""));
    let pepper = folder.join("keyward.pepper");
    let (store, written) = args.store(world, folder)?;
    let database = match &store {
        Location::Sqlite(path) => Some(path),
        Location::File(_) | Location::Postgres(_) => None,
    };
    let there: Vec<String> = [&config, &pepper]
        .into_iter()
        .chain(database)
        .filter(|path| path.symlink_metadata().is_ok())
        .map(|path| path.display().to_string())
        .collect();
    if !there.is_empty() {
        return Err(already(&there));
    }
    let failed = |path: &Path, error: io::Error| {
        let path = path.display();
        Failure::Failed(format!("{path}: cannot be made: {error}; --dir names another folder for all of it"))
    };
    // The empty path is where we are.
    let new_folders = folder.ancestors().take_while(|above| !Path::new(".").join(above).exists());
    let new_folders: Vec<PathBuf> = new_folders.map(Path::to_owned).collect();
    fs::create_dir_all(Path::new(".").join(folder)).map_err(|error| failed(folder, error))?;
    let mut secret = Pepper::generate()?;
    secret.push('\n');
    make(&pepper, 0o600, &secret).map_err(|error| failed(&pepper, error))?;
    // A URL may have a password in it.
    let mode = if database.is_some() { 0o644 } else { 0o600 };
    make(&config, mode, &starter(args.upstream.as_deref().unwrap_or(UPSTREAM), written))
        .map_err(|error| failed(&config, error))?;
    let made = try_out(&config, world, console);
    match &made {
        Ok(_) => {}
        Err(Failure::Store(StoreError::Unsettled { .. })) => console.note(format_args!(
            "kept {} and {}: tables that were made fit no other pepper. When the server is back, `keyward init --config {0}` \
             makes them, or says that they are there",
            config.display(),
            pepper.display()
        )),
        // These are ours and a minute old; the next try would otherwise stumble over them.
        Err(_) => {
            drop((fs::remove_file(&config), fs::remove_file(&pepper)));
            // Those that are not empty stay.
            new_folders.iter().for_each(|folder| drop(fs::remove_dir(folder)));
        }
    }
    made.map_err(of_flag)?;
    if let Some(email) = &args.admin {
        first_admin(&config, email, world, console)?;
    }
    tell(&config, [&config, &pepper].into_iter().chain(database), console);
    Ok(Exit::Ok)
}

/// Makes somebody who may manage everything, and prints the one way in: there is no password yet, and never one by default.
fn first_admin(path: &Path, email: &Email, world: &World, console: &mut Console<'_>) -> Result<(), Failure> {
    let KeyStoreConfig { locksmith, store, .. } = config::load_for_keys(path, &world.overrides)?;
    wait(async {
        let store = AnyStore::open(&store, locksmith.pepper.check())?;
        let session = world.session(locksmith, store);
        let (email, role) = (email.clone(), Some("admin".into()));
        let new = NewUser { email, name: None, scope: None, password: None, api_access: false, role };
        let user = session.create_user(new).await?.user;
        let ticket = session.create_link(&user.id, FIRST_LINK).await?;
        console.line(ticket.reveal())?;
        console.note("That is the ticket of a link: it signs the admin in once, within an hour, by POST /v2/session.");
        Ok(Exit::Ok)
    })
    .map(|_| ())
}

/// Reads the new config as `serve` would, and makes the store.
fn try_out(path: &Path, world: &World, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let config = config::load(path, &world.overrides)?;
    made(&config.store, &config.locksmith, console).map(|_| Exit::Ok)
}

/// Makes a store; says whether there was none.
fn made(location: &Location, locksmith: &Locksmith, console: &mut Console<'_>) -> Result<bool, Failure> {
    let mut is_new = false;
    wait(async {
        is_new = AnyStore::open_or_make(location, locksmith.pepper.check()).await?.1;
        if is_new && matches!(location, Location::Postgres(_)) {
            console.note(format_args!("made the tables of a new, empty store in {location}"));
        }
        Ok(Exit::Ok)
    })?;
    Ok(is_new)
}

fn already(there: &[String]) -> Failure {
    Failure::Conflict(format!("already there: {}; nothing is overwritten", there.join(", ")))
}

/// Makes the store of a config that is there, if it is missing: of a config that somebody wrote, or after a volume was lost.
fn store_of(config: &Path, args: &InitArgs, world: &World, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let KeyStoreConfig { locksmith, store, warnings } = config::load_for_keys(config, &world.overrides)?;
    let shown = config.display();
    let folder = config.parent().unwrap_or(Path::new(""));
    if args.upstream.is_some() || args.store.is_some() && args.store(world, folder)?.0 != store {
        let why = format!(
            "{shown} is already there and stays as it is: change it there, or leave --upstream and --store out"
        );
        return Err(Failure::Conflict(why));
    }
    warn(&warnings, console);
    let is_new = (store.is_missing() || matches!(store, Location::Postgres(_))) && made(&store, &locksmith, console)?;
    if !is_new {
        return Err(already(&[shown.to_string(), store.to_string()]));
    }
    if let Some(email) = &args.admin {
        first_admin(config, email, world, console)?;
    }
    console.note(format_args!("{shown} stays as it is"));
    let database = match &store {
        Location::Sqlite(path) => Some(path),
        Location::File(_) | Location::Postgres(_) => None,
    };
    tell(config, database.into_iter(), console);
    Ok(Exit::Ok)
}

/// A file that is gone again is no place for a mistake: the one thing in it that can be wrong came from a flag.
fn of_flag(failure: Failure) -> Failure {
    let Failure::Config(mistakes) = failure else { return failure };
    let is_of_flag = |found: &&Finding| found.path == "proxy.upstream" && matches!(found.place, Place::File { .. });
    match mistakes.mistakes.iter().find(is_of_flag) {
        Some(Finding { message, .. }) => Failure::Usage(format!("--upstream: {message}")),
        None => Failure::Config(mistakes),
    }
}

fn make(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A config that works, short enough to be read.
fn starter(upstream: &str, store: Option<&str>) -> String {
    // JSON's strings are YAML's too.
    let upstream = serde_json::Value::from(upstream);
    let store = match store {
        None => "# store: where KEYWARD_STORE in the environment says".to_owned(),
        Some(DATABASE) => format!("store: {DATABASE}"),
        Some(store) => format!("store: {}", serde_json::Value::from(store)),
    };
    format!(
        "\
# The config of Keyward. `keyward schema` describes every option; `keyward check` says what is wrong.
version: 1
proxy:
  listen: 0.0.0.0:8080                 # clients connect here
  upstream: {upstream}
keys:
  brand: kw                            # keys begin with it: kw_live_…
  pepper: {{ file: ./keyward.pepper }}   # goes into every digest: without it all keys are lost, so keep a copy apart
  # shapes: [{{ name: legacy, length: 20, alphabet: hex }}]   # keys of another system, for `keyward key import`
{store}
ops:
  listen: 0.0.0.0:9464                 # /livez, /readyz and /metrics
"
    )
}

fn tell<'p>(config: &Path, made: impl Iterator<Item = &'p PathBuf>, console: &mut Console<'_>) {
    for path in made {
        console.note(format_args!("made {}", path.display()));
    }
    let flag =
        if config == Path::new("keyward.yaml") { String::new() } else { format!(" --config {}", config.display()) };
    console.note(format_args!(
        "Next:\n  keyward key create{flag} --name first\n  keyward check{flag}\n  keyward serve{flag}\n\
         Keep a copy of the pepper apart from the database: without it no key works any more."
    ));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cli::check;
    use crate::cli::testing::{Ran, noon, remember};
    use crate::config::Overrides;

    fn world() -> World {
        World { overrides: Overrides::default(), now: noon() }
    }

    #[track_caller]
    fn init(folder: &Path, upstream: &str) -> Ran {
        let (dir, upstream) = (Some(folder.to_owned()), Some(upstream.to_owned()));
        let args = InitArgs { dir, config: None, upstream, store: None, admin: None };
        remember(|console| run(&args, &world(), console))
    }

    #[test]
    fn v1_a_first_admin_comes_in_by_a_link_and_not_by_a_password() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, admin) = (Some(folder.path().join("k")), Some("root@example.com".parse().unwrap()));
        let args = InitArgs { dir, config: None, upstream: None, store: None, admin };
        let ran = remember(|console| run(&args, &world(), console));
        assert!(ran.code == 0 && ran.out.trim().len() == 43 && ran.out.lines().count() == 1, "{ran:?}");
    }

    #[test]
    fn a_first_config_works_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("etc/keyward");
        let ran = init(&place, "http://127.0.0.1:9000");
        assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{ran:?}");
        for (name, mode) in [("keyward.yaml", 0o644), ("keyward.pepper", 0o600), ("keyward.db", 0o600)] {
            assert_eq!(place.join(name).metadata().unwrap().permissions().mode() & 0o777, mode, "{name}");
        }
        let config = place.join("keyward.yaml");
        let checked = remember(|console| check::run(&config, &world(), console));
        assert_eq!(checked.code, 0, "{checked:?}");
        assert!(checked.out.ends_with("ok  keys 0 (active 0), secrets 0, scopes 0\n"), "{checked:?}");
        // Of another pepper nothing fits.
        let pepper = place.join("keyward.pepper");
        fs::remove_file(&pepper).unwrap();
        make(&pepper, 0o600, &"ab".repeat(32)).unwrap();
        let checked = remember(|console| check::run(&config, &world(), console));
        assert_eq!(checked.code, 7, "{checked:?}");
        fs::remove_file(place.join("keyward.db")).unwrap();
        let checked = remember(|console| check::run(&config, &world(), console));
        assert_eq!(checked.code, 7, "{checked:?}");
        assert!(!place.join("keyward.db").exists(), "a check makes nothing");
    }

    #[test]
    fn a_config_that_is_there_gets_the_store_that_it_lacks_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(init(folder.path(), "http://127.0.0.1:9000").code, 0);
        let (config, database) = (folder.path().join("keyward.yaml"), folder.path().join("keyward.db"));
        let before = ["keyward.yaml", "keyward.pepper"].map(|name| fs::read(folder.path().join(name)).unwrap());
        let again = |store: Option<&str>| {
            let (config, store) = (Some(config.clone()), store.map(str::to_owned));
            let args = InitArgs { dir: None, config, upstream: None, store, admin: None };
            remember(|console| run(&args, &world(), console))
        };
        let ran = again(None);
        assert!(ran.code == 5 && ran.err.contains("keyward.db; nothing is overwritten"), "{ran:?}");
        fs::remove_file(&database).unwrap();
        let ran = init(folder.path(), "http://127.0.0.1:9000");
        assert!(ran.code == 5 && ran.err.contains("stays as it is") && !database.exists(), "{ran:?}");
        let ran = again(Some("sqlite:./other.db"));
        assert!(ran.code == 5 && !folder.path().join("other.db").exists(), "{ran:?}");
        let ran = again(Some(DATABASE));
        assert!(ran.code == 0 && database.exists() && ran.err.contains("stays as it is"), "{ran:?}");
        let after = ["keyward.yaml", "keyward.pepper"].map(|name| fs::read(folder.path().join(name)).unwrap());
        assert_eq!(before, after);
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        for place in [folder.path().to_owned(), folder.path().join("etc/keyward")] {
            let ran = init(&place, "ftp://127.0.0.1");
            assert_eq!((ran.code, fs::read_dir(folder.path()).unwrap().count()), (2, 0), "{ran:?}");
            assert!(ran.err.starts_with("--upstream: ") && !ran.err.contains("yaml"), "{ran:?}");
        }
        fs::write(folder.path().join("keyward.pepper"), "mine").unwrap();
        let ran = init(folder.path(), "http://127.0.0.1:9000");
        assert!(ran.code == 5 && ran.err.contains("keyward.pepper") && !ran.err.contains("yaml"), "{ran:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
