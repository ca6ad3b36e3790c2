//! Logs and metrics.

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
