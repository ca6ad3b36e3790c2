//! One line a request, for those that are asked for. It never has a query, a credential or a header of the client's.

use std::io::Write;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tracing_appender::non_blocking::NonBlocking;

use super::metrics::{Decision, Outcome};
use super::{AccessLog, LogFormat};

/// What a line says. The names are OpenTelemetry's where it has one.
#[derive(Serialize)]
pub struct Entry<'e> {
    /// When the request came, RFC 3339.
    pub timestamp: String,
    /// The id that the client or the upstream was told.
    #[serde(rename = "request.id")]
    pub request_id: &'e str,
    /// The trace, where one is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The method.
    #[serde(rename = "http.request.method")]
    pub method: &'e str,
    /// The path, without its query.
    #[serde(rename = "url.path")]
    pub path: &'e str,
    /// The status of the answer.
    #[serde(rename = "http.response.status_code")]
    pub status: u16,
    /// The client, behind trusted proxies.
    #[serde(rename = "client.address", skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// Which of the four.
    pub decision: &'static str,
    /// Why.
    pub reason: &'static str,
    /// The key, where it is known.
    #[serde(rename = "key.id", skip_serializing_if = "str::is_empty")]
    pub key_id: &'e str,
    /// How it was presented.
    #[serde(rename = "credential.form", skip_serializing_if = "Option::is_none")]
    pub form: Option<&'static str>,
    /// From the request's head to the end of the answer.
    pub duration_ms: f64,
}

/// Writes lines without ever waiting: a full queue drops them, and counts.
#[derive(Clone)]
pub struct AccessLogger {
    which: AccessLog,
    format: LogFormat,
    lines: NonBlocking,
}

impl AccessLogger {
    pub(super) fn new(which: AccessLog, format: LogFormat, lines: NonBlocking) -> Self {
        Self { which, format, lines }
    }

    /// The same log, for other requests.
    pub fn of(&self, which: AccessLog) -> Self {
        Self { which, format: self.format, lines: self.lines.clone() }
    }

    pub(super) fn format(&self) -> LogFormat {
        self.format
    }

    /// Whether any request may get a line; if not, nothing needs to be gathered for one.
    pub fn is_on(&self) -> bool {
        self.which != AccessLog::None
    }

    /// Whether a request with this outcome and status gets a line.
    pub fn wants(&self, outcome: Outcome, status: u16) -> bool {
        match self.which {
            AccessLog::None => false,
            AccessLog::Denied => match outcome.decision() {
                Decision::Denial | Decision::Error => true,
                Decision::Managed => matches!(status, 401 | 403 | 429 | 500..),
                Decision::Permit | Decision::Public => false,
            },
            AccessLog::All => true,
        }
    }

    /// Writes a line.
    pub fn write(&self, entry: &Entry<'_>) {
        let line = match self.format {
            LogFormat::Text => text(entry),
            LogFormat::Auto | LogFormat::Json => json(entry),
        };
        // The queue counts what it drops; there is nobody else to tell.
        let _ = self.lines.clone().write_all(line.as_bytes());
    }
}

fn json(entry: &Entry<'_>) -> String {
    // Strings and numbers only: JSON can always write them.
    let mut line = serde_json::to_string(entry).unwrap_or_default();
    line.push('\n');
    line
}

/// For people: what matters most first. Whatever came from outside is escaped, so that a line stays a line.
fn text(e: &Entry<'_>) -> String {
    let client = e.client.map_or_else(|| "-".to_owned(), |address| address.to_string());
    let key = if e.key_id.is_empty() { "-" } else { e.key_id };
    format!(
        "{} {} {} {} {} {} key={key} form={} client={client} id={} {:.3}ms\n",
        e.timestamp,
        e.decision,
        e.reason,
        e.status,
        e.method.escape_default(),
        e.path.escape_default(),
        e.form.unwrap_or("-"),
        e.request_id,
        e.duration_ms
    )
}

/// The time of an entry: when a request that took so long began.
pub fn began(took: Duration) -> String {
    humantime::format_rfc3339_millis(SystemTime::now() - took).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry<'static> {
        Entry {
            timestamp: "2026-01-01T00:00:00.000Z".into(),
            request_id: "abc",
            trace_id: None,
            method: "GET",
            path: "/a\"\n\u{1b}[31m",
            status: 401,
            client: Some("10.0.0.1".parse().unwrap()),
            decision: "denial",
            reason: "unknown_credential",
            key_id: "",
            form: Some("bearer"),
            duration_ms: 0.25,
        }
    }

    #[test]
    fn what_comes_from_outside_cannot_break_a_line() {
        let (text, json) = (text(&entry()), json(&entry()));
        assert_eq!(
            text,
            "2026-01-01T00:00:00.000Z denial unknown_credential 401 GET /a\\\"\\n\\u{1b}[31m key=- form=bearer client=10.0.0.1 id=abc 0.250ms\n"
        );
        assert_eq!(
            json,
            "{\"timestamp\":\"2026-01-01T00:00:00.000Z\",\"request.id\":\"abc\",\"http.request.method\":\"GET\",\
             \"url.path\":\"/a\\\"\\n\\u001b[31m\",\"http.response.status_code\":401,\"client.address\":\"10.0.0.1\",\
             \"decision\":\"denial\",\"reason\":\"unknown_credential\",\"credential.form\":\"bearer\",\"duration_ms\":0.25}\n"
        );
    }
}
