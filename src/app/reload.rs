//! Reads the config again while the program runs: on SIGHUP, when its files change, when somebody asks on the admin
//! listener.
//!
//! All or nothing. A config with mistakes changes nothing, and neither does one that differs in what only a start can put
//! in force: what runs is always what one state of the files said as a whole.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::auth::digest::PepperCheck;
use crate::config::{Config, Finding, Mistakes, Source};
use crate::files::{self, Contents};
use crate::lifecycle::{Lifecycle, ReloadRequest};
use crate::ops::probes::Probes;
use crate::replica::Replica;
use crate::store::Location;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Exporters;
use crate::telemetry::{AccessLogger, Level, LogFormat};
use crate::{admin, proxy};

/// How often the files are looked at when the operating system gives no sign.
const INTERVAL: Duration = Duration::from_secs(10);

/// How long after a config was not taken over it is read again: what is wrong may mend itself, as a certificate that is not
/// valid yet does.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Why a config is read that was not taken over before.
const AGAIN: &str = "it was not taken over before";

/// The parts that can go on under another config.
pub(super) struct Parts {
    pub(super) proxy: Arc<proxy::Live>,
    pub(super) api: Arc<admin::api::Live>,
    pub(super) probes: Arc<ArcSwapOption<Probes>>,
    pub(super) replica: Arc<Replica>,
    pub(super) poll_interval: watch::Sender<Duration>,
    pub(super) access: AccessLogger,
    pub(super) level: Level,
    pub(super) exporters: Exporters,
    pub(super) metrics: Arc<Metrics>,
    pub(super) lifecycle: Lifecycle,
}

/// Where the config is from, and the files that it was read from.
pub struct Watched {
    source: Source,
    contents: Contents,
}

impl Watched {
    /// Reads the config at the start. Whatever changes in its files from then on is news.
    ///
    /// # Errors
    /// When the config has mistakes.
    pub fn load(source: Source) -> Result<(Config, Self), Mistakes> {
        let mut watched = Self { contents: Contents::new(std::slice::from_ref(&source.path)), source };
        watched.read().map(|config| (config, watched))
    }

    /// The files are looked at before they are read, so that no change falls between the two.
    fn read(&mut self) -> Result<Config, Mistakes> {
        loop {
            self.contents.look();
            let config = self.source.load()?;
            if self.contents.are_of(&config.files) {
                return Ok(config);
            }
            self.contents = Contents::new(&config.files);
        }
    }
}

/// A config that may be read again, for the time of the start: what it was, and the signals that come meanwhile.
pub(super) struct Rereadable {
    watched: Watched,
    fixed: Fixed,
    hangup: Signal,
}

impl Rereadable {
    /// From now on SIGHUP does not end the process: whoever sends it does not wait until it has started.
    pub(super) fn new(watched: Watched, config: &Config) -> io::Result<Self> {
        Ok(Self { watched, fixed: Fixed::of(config), hangup: signal(SignalKind::hangup())? })
    }
}

/// Waits for reasons to read the config again, and does.
pub(super) struct Reloader {
    watched: Watched,
    fixed: Fixed,
    hangup: Signal,
    asked: mpsc::Receiver<ReloadRequest>,
    parts: Parts,
    /// Why the last try came to nothing, if it did.
    refused: Option<String>,
}

impl Reloader {
    /// For a config that is in force.
    pub(super) fn new(config: Rereadable, asked: mpsc::Receiver<ReloadRequest>, parts: Parts) -> Self {
        let Rereadable { watched, fixed, hangup } = config;
        files::warn_of_mount_point(&watched.source.path);
        Self { watched, fixed, hangup, asked, parts, refused: None }
    }

    /// Runs for ever.
    pub(super) async fn run(mut self) -> io::Result<()> {
        loop {
            let (cause, asked) = tokio::select! {
                _ = self.hangup.recv() => ("SIGHUP", None),
                Some(asked) = self.asked.recv() => ("POST /-/reload", Some(asked)),
                () = self.watched.contents.changed(INTERVAL) => ("the files changed", None),
                () = sleep(AGAIN_AFTER), if self.refused.is_some() => (AGAIN, None),
            };
            let result = self.reload().await;
            let refused = result.as_ref().err().map(Refused::to_string);
            let is_news = cause != AGAIN || self.refused != refused;
            self.refused = refused;
            if is_news {
                self.account(cause, &result);
            }
            if let Some(asked) = asked {
                // Who asked may have left.
                let _ = asked.send(result.map(said).map_err(|refused| refused.to_string()));
            }
        }
    }

    /// Everything that can fail comes before the first change.
    async fn reload(&mut self) -> Result<Vec<Finding>, Refused> {
        let config = self.read().await?;
        let differences = self.fixed.differences(&Fixed::of(&config));
        if !differences.is_empty() {
            return Err(Refused::NeedsRestart(differences));
        }
        let Config { proxy, ops, sync, log, traces, locksmith, warnings, .. } = config;
        let access = self.parts.access.of(log.access);
        let tracer = self.parts.exporters.start(traces);
        let trusted = proxy.trusted_proxies.clone();
        self.parts.proxy.replace(proxy, access, tracer).map_err(|error| Refused::Broken(error.to_string()))?;
        self.parts.api.replace(locksmith, trusted);
        self.parts.probes.store(ops.and_then(|ops| ops.probes));
        self.parts.replica.set_max_staleness(sync.max_staleness);
        self.parts
            .poll_interval
            .send_if_modified(|now| std::mem::replace(now, sync.poll_interval) != sync.poll_interval);
        self.parts.level.set(&log.level);
        Ok(warnings)
    }

    /// Reads the config on a thread of its own: a disk may take its time.
    async fn read(&mut self) -> Result<Config, Refused> {
        let source = self.watched.source.clone();
        let mut watched = Watched { contents: std::mem::take(&mut self.watched.contents), source: source.clone() };
        let read = spawn_blocking(move || (watched.read(), watched)).await;
        let (config, contents) = match read {
            Ok((config, watched)) => (config.map_err(Refused::from), watched.contents),
            Err(_) => (
                Err(Refused::Broken("reading it ended in a panic".to_owned())),
                Contents::new(std::slice::from_ref(&source.path)),
            ),
        };
        self.watched.contents = contents;
        config
    }

    fn account(&self, cause: &str, result: &Result<Vec<Finding>, Refused>) {
        self.parts.metrics.config.reloaded(result.is_ok());
        self.parts.lifecycle.report("config", result.as_ref().err().map(Refused::in_short));
        match result {
            Ok(warnings) => {
                warnings.iter().for_each(|warning| tracing::warn!(%warning, "the config is doubtful"));
                tracing::info!(cause, "the config was read again and is in force");
            }
            Err(refused) => {
                let why = refused.to_string().replace('\n', "; ");
                tracing::error!(cause, why, "the config was read again and not taken over; the old one stays in force");
            }
        }
    }
}

/// What somebody hears who asked.
fn said(warnings: Vec<Finding>) -> String {
    warnings.iter().map(|warning| format!("warning: {warning}\n")).collect::<String>() + "the config is in force"
}

/// What only a start can put in force.
struct Fixed {
    proxy: SocketAddr,
    /// `None` is `auto`: what that comes to may change while nobody touches the config.
    workers: Option<usize>,
    admin: Option<admin::Config>,
    ops: Option<SocketAddr>,
    store: Location,
    node: Option<String>,
    snapshot: Option<PathBuf>,
    pepper: PepperCheck,
    log: LogFormat,
}

impl Fixed {
    fn of(config: &Config) -> Self {
        let workers = &config.proxy.workers;
        Self {
            proxy: config.proxy.listen,
            workers: (!workers.is_auto).then_some(workers.count),
            admin: config.admin.clone(),
            ops: config.ops.as_ref().map(|ops| ops.listen),
            store: config.store.clone(),
            node: config.sync.node.clone(),
            snapshot: config.sync.snapshot.clone(),
            pepper: config.locksmith.pepper.check(),
            log: config.log.format,
        }
    }

    /// The options in which another config differs.
    fn differences(&self, other: &Self) -> Vec<&'static str> {
        let options = [
            ("proxy.listen", self.proxy == other.proxy),
            ("proxy.workers", self.workers == other.workers),
            ("admin.listen", self.admin == other.admin),
            ("ops.listen", self.ops == other.ops),
            ("store", self.store == other.store),
            ("sync.node", self.node == other.node),
            ("sync.snapshot", self.snapshot == other.snapshot),
            ("keys.pepper", self.pepper == other.pepper),
            ("log.format", self.log == other.log),
        ];
        options.into_iter().filter(|(_, same)| !same).map(|(option, _)| option).collect()
    }
}

/// Why nothing changed.
#[derive(Debug)]
enum Refused {
    Mistakes(Mistakes),
    NeedsRestart(Vec<&'static str>),
    Broken(String),
}

impl Refused {
    /// For a page that everybody may read.
    fn in_short(&self) -> String {
        match self {
            Self::Mistakes(mistakes) => {
                format!("{} in what the files say now; the log names them", mistakes.count())
            }
            Self::NeedsRestart(_) => self.to_string(),
            Self::Broken(_) => "it cannot be read again; the log says why".to_owned(),
        }
    }
}

impl From<Mistakes> for Refused {
    fn from(mistakes: Mistakes) -> Self {
        Self::Mistakes(mistakes)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mistakes(mistakes) => mistakes.fmt(f),
            Self::NeedsRestart(options) => {
                write!(f, "{} changed, which takes a restart; nothing else was taken over either", options.join(", "))
            }
            Self::Broken(why) => f.write_str(why),
        }
    }
}
