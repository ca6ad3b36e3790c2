//! What can be seen from outside: logs and metrics. Nothing here ever sees a secret.

pub mod access_log;
mod histogram;
pub mod metrics;

use std::io::IsTerminal;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

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
        Self { access, dropped: lines.error_counter(), lines, _writer: writer }
    }

    /// Sends what the program itself has to say the same way. Only the first call of a process counts.
    pub fn install(&self, config: &Config) {
        let filter = EnvFilter::try_new(&config.level).unwrap_or_else(|_| EnvFilter::new("info"));
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(self.lines.clone()).with_ansi(false);
        // A second subscriber in one process is refused; the first one then keeps all lines.
        let _ = match self.access.format() {
            LogFormat::Text => lines.try_init(),
            LogFormat::Auto | LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
        };
    }

    /// How many lines have been dropped so far.
    pub fn dropped(&self) -> DroppedLines {
        DroppedLines(self.dropped.clone())
    }
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
