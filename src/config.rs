//! The config: YAML, environment and flags in, each component's own `Config` out, or every mistake at once.
//!
//! What it takes, in this order: the text becomes a tree (`document`); environment and flags are laid over it
//! (`overrides`); what does not fit the `schema` is reported and cut off (`shape`); the rest becomes plain structs
//! (`raw`); and those become values that cannot be wrong (here, `proxy`, `keys`, `routes`, `values`). Nothing after this
//! module looks at YAML, and nobody holds the config as a whole.

mod admin;
mod document;
mod keys;
mod ops;
mod overrides;
mod place;
mod proxy;
mod raw;
mod report;
mod routes;
mod schema;
mod secrecy;
mod shape;
mod suggest;
#[cfg(test)]
mod tests;
mod traces;
mod upstream;
mod values;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::place::OptionPath;
use self::report::Report;
use self::schema::Shapes;
use crate::auth::Locksmith;
use crate::store::Location;
use crate::{sync, telemetry, tls};

pub use self::overrides::Overrides;
pub use self::place::{Place, Position};
pub use self::report::{Finding, Mistakes};

/// Everything that `keyward serve` is told, component by component.
pub struct Config {
    /// The data plane.
    pub proxy: crate::proxy::Config,
    /// The management API; `None` when it is not wanted.
    pub admin: Option<crate::admin::Config>,
    /// Health and metrics; `None` when they are not wanted.
    pub ops: Option<crate::ops::Config>,
    /// How the replica is kept up.
    pub sync: sync::Config,
    /// Where keys and scopes are kept.
    pub store: Location,
    /// How secrets are read and looked up; the same as in `proxy`.
    pub locksmith: Arc<Locksmith>,
    /// Logs.
    pub log: telemetry::Config,
    /// Traces; `None` when they are not wanted.
    pub traces: Option<telemetry::traces::Config>,
    /// The files it was read from.
    pub files: Vec<PathBuf>,
    /// What is doubtful, for the log.
    pub warnings: Vec<Finding>,
}

/// What a command that works on keys is told.
pub struct KeyStoreConfig {
    /// How secrets are read and looked up.
    pub locksmith: Arc<Locksmith>,
    /// Where keys and scopes are kept.
    pub store: Location,
    /// What is doubtful, for the terminal.
    pub warnings: Vec<Finding>,
}

/// Where the config is, and what lies over it; it can be read more than once.
#[derive(Clone)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// The environment and the flags.
    pub overrides: Overrides,
}

impl Source {
    /// Reads it as it is now.
    ///
    /// # Errors
    /// As [`load`].
    pub fn load(&self) -> Result<Config, Mistakes> {
        load(&self.path, &self.overrides)
    }
}

/// Reads the config of `keyward serve`.
///
/// # Errors
/// When the file cannot be read, or anything in it is wrong: then with all of its mistakes.
pub fn load(path: &Path, overrides: &Overrides) -> Result<Config, Mistakes> {
    let (parts, report) = read(path, overrides, Purpose::Serve)?;
    report.finish(|warnings| {
        let Parts { proxy, admin, ops, sync, store, locksmith, log, traces, files } = parts;
        let (proxy, store, locksmith) = (proxy?, store?, locksmith?);
        Some(Config { proxy, admin, ops, sync, store, locksmith, log, traces, files, warnings })
    })
}

/// Reads what commands need that work on keys: a config that is enough for them may lack the `proxy` section.
///
/// # Errors
/// As [`load`]: a mistake anywhere in the file counts.
pub fn load_for_keys(path: &Path, overrides: &Overrides) -> Result<KeyStoreConfig, Mistakes> {
    let (parts, report) = read(path, overrides, Purpose::Keys)?;
    report.finish(|warnings| Some(KeyStoreConfig { locksmith: parts.locksmith?, store: parts.store?, warnings }))
}

/// Reads a text as far as it says nothing of other files.
#[cfg(any(test, fuzzing))]
pub fn read_text(text: &str) {
    let mut report = Report::new(String::new(), text.to_owned());
    let whole = raw_of(&Overrides::default(), &mut report).is_some();
    let said = report.into_mistakes().to_string();
    assert!(whole || !said.is_empty(), "nothing is said of {text:?}");
    assert!(!said.contains("bug in Keyward"), "{said}");
}

/// The JSON Schema of the config file.
pub fn schema() -> String {
    format!("{:#}\n", Shapes::of_config().root())
}

/// What a config is read for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To serve requests.
    Serve,
    /// To work on keys.
    Keys,
}

/// The sections, each as its component wants it. What is `None` is not there, or was reported.
struct Parts {
    proxy: Option<crate::proxy::Config>,
    admin: Option<crate::admin::Config>,
    ops: Option<crate::ops::Config>,
    sync: sync::Config,
    store: Option<Location>,
    locksmith: Option<Arc<Locksmith>>,
    log: telemetry::Config,
    traces: Option<telemetry::traces::Config>,
    files: Vec<PathBuf>,
}

/// Reads the file and everything laid over it, as far as it can be read.
fn read(path: &Path, overrides: &Overrides, purpose: Purpose) -> Result<(Parts, Report), Mistakes> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let first = if error.kind() == ErrorKind::NotFound { "; `keyward init` writes a first config" } else { "" };
        let mut report = Report::new(file.clone(), String::new());
        report.unreadable(None, format!("cannot be read: {error}{first}"));
        report.into_mistakes()
    })?;
    let mut report = Report::new(file, text);
    let Some(raw) = raw_of(overrides, &mut report) else { return Err(report.into_mistakes()) };
    let at = OptionPath::of(["proxy"]);
    if purpose == Purpose::Serve && raw.proxy.is_none() && !report.has_mistake_within(&at) {
        report.mistake(&at, "is missing; say where requests go, such as `proxy: { upstream: http://127.0.0.1:9000 }`");
    }
    let parts = Parts::from_raw(&raw, path, overrides, purpose, &mut report);
    Ok((parts, report))
}

/// The plain structs: all that has the right shape. `None` where the text is no YAML at all.
fn raw_of(overrides: &Overrides, report: &mut Report) -> Option<raw::File> {
    let document = match document::parse(report.text()) {
        Ok(document) => document,
        Err(error) => {
            report.unreadable(error.position, error.problem);
            return None;
        }
    };
    for (path, before) in &document.repeated {
        report.repeated(path, *before);
    }
    let shapes = Shapes::of_config();
    let mut tree = document.tree;
    let unknown = overrides.apply(&mut tree, &shapes, report);
    let fitting = shape::fit(tree, &shapes, report)?;
    // The message of the library is left out: it may repeat a value.
    let raw =
        serde_yaml::from_value(fitting).map_err(|_| "fits its schema, but cannot be read: this is a bug in Keyward");
    let raw: Option<raw::File> = report.take(&OptionPath::default(), raw);
    let pepper = raw.as_ref().and_then(|raw| raw.keys.as_ref()?.pepper.as_ref()?.env.as_ref());
    for (name, advice) in unknown.into_iter().filter(|(name, _)| Some(name) != pepper) {
        report.warn_of_variable(&name, advice);
    }
    raw
}

impl Parts {
    fn from_raw(raw: &raw::File, path: &Path, overrides: &Overrides, purpose: Purpose, report: &mut Report) -> Self {
        let base = path.parent().unwrap_or(Path::new(""));
        let store =
            raw.store.as_ref().and_then(|text| report.take(&OptionPath::of(["store"]), Location::parse(text, base)));
        let locksmith = raw.keys.as_ref().and_then(|keys| keys::locksmith(keys, base, overrides, report)).map(Arc::new);
        let listeners = proxy::listeners(raw, report);
        let sync = sync_of(&raw.sync, store.as_ref(), base, report);
        let log = log_of(&raw.log, report);
        let around = traces::Around { base, overrides, reads_files: purpose == Purpose::Serve };
        let spans = traces::traces(raw.traces.as_ref(), &around, report);
        let proxy = proxy::proxy(raw, listeners.proxy, locksmith.as_ref(), base, purpose == Purpose::Serve, report);
        let files = (base, purpose == Purpose::Serve);
        let admin = admin::admin(raw.admin.as_ref(), listeners.admin, files, report);
        let upstream = proxy.as_ref().map(|proxy| (&proxy.upstream, proxy.upstream_protocol));
        let ops = ops::ops(raw.ops.as_ref(), listeners.ops, upstream, report);
        let pepper = raw.keys.as_ref().and_then(|keys| keys.pepper.as_ref()?.file.as_ref());
        let tls = raw.proxy.as_ref().and_then(|proxy| proxy::tls_files(proxy.tls.as_ref()?, base));
        let files = [path.to_owned()].into_iter().chain(pepper.map(|file| base.join(file)));
        let upstream = raw.proxy.as_ref().and_then(|proxy| proxy.upstream_tls.as_ref());
        let upstream = upstream.map(|raw| upstream::files(raw, base)).unwrap_or_default();
        let files = files.chain(upstream.paths().cloned());
        let files = files.chain(raw.traces.iter().flat_map(|raw| traces::files(raw, base)));
        let files = files.chain(tls.iter().flat_map(tls::ServerFiles::paths).cloned()).collect();
        Self { proxy, admin, ops, sync, store, locksmith, log, traces: spans, files }
    }
}

fn sync_of(raw: &raw::Sync, store: Option<&Location>, base: &Path, report: &mut Report) -> sync::Config {
    let at = OptionPath::of(["sync"]);
    let default = store.map_or(Duration::from_millis(250), Location::poll_interval);
    let poll = raw.poll.as_ref().map(|poll| report.take(&at.key("poll"), values::time_above_zero(poll)));
    let poll_interval = poll.map_or(default, Option::unwrap_or_default);
    let max_staleness = report.take(&at.key("max_staleness"), values::time_above_zero(&raw.max_staleness));
    let max_staleness = max_staleness.unwrap_or(Duration::MAX);
    if max_staleness <= poll_interval {
        let poll_interval = humantime::format_duration(poll_interval);
        report.mistake(&at.key("max_staleness"), format!("must be longer than sync.poll, which is {poll_interval}"));
    }
    let node = raw.node.as_deref().and_then(|node| report.take(&at.key("node"), values::node(node)));
    let snapshot = raw.snapshot.as_deref().filter(|path| !path.is_empty()).map(|path| base.join(path));
    sync::Config { poll_interval, max_staleness, snapshot, node }
}

fn log_of(raw: &raw::Log, report: &mut Report) -> telemetry::Config {
    let level = report.take(&OptionPath::of(["log", "level"]), values::level(&raw.level)).unwrap_or_default();
    telemetry::Config {
        format: match raw.format {
            raw::LogFormat::Auto => telemetry::LogFormat::Auto,
            raw::LogFormat::Json => telemetry::LogFormat::Json,
            raw::LogFormat::Text => telemetry::LogFormat::Text,
        },
        level,
        access: match raw.access {
            raw::Access::None => telemetry::AccessLog::None,
            raw::Access::Denied => telemetry::AccessLog::Denied,
            raw::Access::All => telemetry::AccessLog::All,
        },
    }
}
