//! What can be seen from outside: logs, metrics and traces. Nothing here ever sees a secret.

pub mod access_log;
mod histogram;
pub mod metrics;
pub mod traces;

use std::io::IsTerminal;
use std::sync::{Arc, OnceLock};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{registry, reload};

pub use self::access_log::AccessLogger;

/// Lines that may wait to be written. A worker never waits: what does not fit is dropped and counted.
const QUEUE: usize = 16_384;

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The form of lines.
    pub format: LogFormat,
    /// A level, or directives such as `info,keyward::sync=debug`.
    pub level: String,
    /// Which requests have a line.
    pub access: AccessLog,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// A JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Which requests have a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    None,
    /// Denied ones, and those that failed.
    Denied,
    /// All.
    All,
}

/// The log of the process. Dropping it writes what is still waiting.
pub struct Logs {
    /// For the data plane.
    pub access: AccessLogger,
    dropped: ErrorCounter,
    level: Level,
    lines: NonBlocking,
    _writer: WorkerGuard,
}

impl Logs {
    /// Starts the thread that writes lines to standard error.
    pub fn start(config: &Config) -> Self {
        let format = match config.format {
            LogFormat::Auto if std::io::stderr().is_terminal() => LogFormat::Text,
            LogFormat::Auto => LogFormat::Json,
            LogFormat::Json | LogFormat::Text => config.format,
        };
        let builder = NonBlockingBuilder::default().buffered_lines_limit(QUEUE).lossy(true).thread_name("keyward-log");
        let (lines, writer) = builder.finish(std::io::stderr());
        let access = AccessLogger::new(config.access, format, lines.clone());
        Self { access, dropped: lines.error_counter(), level: Level::default(), lines, _writer: writer }
    }

    /// Sends what the program itself has to say the same way. Only the first call of a process counts.
    pub fn install(&self, config: &Config) {
        let (filter, level) = reload::Layer::new(filter(&config.level));
        let (all, lines) = (registry().with(filter), layer().with_writer(self.lines.clone()).with_ansi(false));
        let installed = match self.access.format() {
            LogFormat::Text => all.with(lines).try_init(),
            LogFormat::Auto | LogFormat::Json => {
                all.with(lines.json().flatten_event(true).with_current_span(false)).try_init()
            }
        };
        // A second subscriber in one process is refused; the first one then keeps all lines.
        let _ = installed.map(|()| self.level.changed_by(move |filter| level.reload(filter)));
    }

    /// What may change while it runs.
    pub fn level(&self) -> Level {
        self.level.clone()
    }

    /// How many lines have been dropped so far.
    pub fn dropped(&self) -> DroppedLines {
        DroppedLines(self.dropped.clone())
    }
}

/// How much the program says of itself.
#[derive(Clone, Default)]
pub struct Level(Arc<OnceLock<Box<SetFilter>>>);

type SetFilter = dyn Fn(Targets) + Send + Sync;

impl Level {
    fn changed_by(&self, set: impl Fn(Targets) -> Result<(), reload::Error> + Send + Sync + 'static) {
        // It fails only where there is no subscriber any more, and so nobody to hear it.
        let _ = self.0.set(Box::new(move |filter| drop(set(filter))));
    }

    /// From now on it says this much: a level, or directives.
    pub fn set(&self, level: &str) {
        if let Some(set) = self.0.get() {
            set(filter(level));
        }
    }
}

/// What is no filter was refused when the config was read. The library of HTTP/2 warns of each connection that it gives up,
/// and anybody can make any number of those: it is heard only where the config asks for it by name.
fn filter(level: &str) -> Targets {
    let quiet = |level: &str| format!("h2=error,{level}").parse();
    quiet(level).unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO))
}

/// Counts log lines that did not fit into the queue.
#[derive(Clone)]
pub struct DroppedLines(ErrorCounter);

impl DroppedLines {
    /// How many, since the start.
    pub fn count(&self) -> usize {
        self.0.dropped_lines()
    }
}
