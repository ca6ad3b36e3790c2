//! `--server URL`: the same commands by a server's management API. A change is made against what was read before it
//! (`If-Match`), and what makes something can be sent again without making it twice (`Idempotency-Key`).

mod answer;
mod bodies;
mod http;
mod import;
mod place;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ::http::Method;
use ::http::header::{HeaderName, IF_MATCH};
use clap::Args;
use serde_json::Value;
use zeroize::Zeroizing;

use self::answer::{Done, lost, read};
use self::http::{Lost, Question, Way};
use super::console::printable;
use super::exit::Failure;
use super::open::World;
use crate::auth::grant::Timestamp;
use crate::auth::query;
use crate::manage::Stored;
use crate::store::record::{Body, Kind, RecordId};

/// How often something is asked that may be asked again, and how long after the first time.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);
/// How many things a page has.
const PAGE: usize = 1000;

/// Which server, and how to reach it.
#[derive(Args, Debug)]
pub(super) struct ServerArgs {
    /// A server's management API, in place of a store: https://keys.example.com. The API key is in KEYWARD_API_KEY
    #[arg(long, value_name = "URL", global = true, display_order = 102)]
    pub(super) server: Option<String>,
    /// A file with the API key, in place of KEYWARD_API_KEY
    #[arg(long, value_name = "FILE", global = true, display_order = 103)]
    key_file: Option<PathBuf>,
    /// The roots of the server's certificate, in place of those of this machine
    #[arg(long, value_name = "FILE", global = true, display_order = 104)]
    ca: Option<PathBuf>,
    /// Let the API key go in the clear to a server on another machine
    #[arg(long, global = true, display_order = 105)]
    allow_http: bool,
}

impl ServerArgs {
    /// Whether anything is said that only makes sense with a server.
    pub(super) fn says_anything(&self) -> bool {
        self.key_file.is_some() || self.ca.is_some() || self.allow_http
    }

    /// The server.
    pub(super) fn open(&self, url: &str, world: &World) -> Result<Server, Failure> {
        let key = match &self.key_file {
            Some(path) => {
                let text = fs::read_to_string(path);
                let shown = path.display();
                Zeroizing::new(
                    text.map_err(|error| Failure::Usage(format!("--key-file: {shown} cannot be read: {error}")))?,
                )
            }
            None => Zeroizing::new(world.variable("KEYWARD_API_KEY").unwrap_or_default().to_owned()),
        };
        if key.trim().is_empty() {
            let why = "--server needs an API key that has a role, in KEYWARD_API_KEY or in a file (--key-file)";
            return Err(Failure::Usage(why.to_owned()));
        }
        let way = Way::new(url, self.ca.as_deref(), self.allow_http, key.trim())?;
        Ok(Server { way, now: world.now })
    }
}

/// What is sent along.
#[derive(Clone, Copy)]
enum Sent<'s> {
    Nothing,
    Json(&'s Value),
    /// Rows of keys, and the media type that they are of.
    Rows(&'static str, &'s str),
}

/// A server's management API.
pub(super) struct Server {
    way: Way,
    now: Timestamp,
}

impl Server {
    /// Reads something, and again if the answer was lost.
    async fn get(&self, target: &str) -> Result<Done, Failure> {
        self.ask(Method::GET, target, vec![], Sent::Nothing, true).await
    }

    /// Makes something, once, even if it is sent more often.
    async fn post(&self, target: &str, body: &Value) -> Result<Done, Failure> {
        let name = HeaderName::from_static("idempotency-key");
        let once = format!("{:016x}{:016x}", getrandom::u64()?, getrandom::u64()?);
        self.ask(Method::POST, target, vec![(name, once)], Sent::Json(body), true).await
    }

    /// Changes or deletes something that is as it was read, or does nothing.
    async fn change(&self, method: Method, target: &str, seen: u64, body: Option<&Value>) -> Result<Done, Failure> {
        let body = body.map_or(Sent::Nothing, Sent::Json);
        self.ask(method, target, vec![(IF_MATCH, format!("\"{seen}\""))], body, false).await
    }

    async fn ask(
        &self,
        method: Method,
        target: &str,
        fields: Vec<(HeaderName, String)>,
        sent: Sent<'_>,
        again: bool,
    ) -> Result<Done, Failure> {
        let json = if let Sent::Json(body) = sent { Zeroizing::new(body.to_string()) } else { Zeroizing::default() };
        let body = match sent {
            Sent::Nothing => None,
            Sent::Json(_) => Some(("application/json", json.as_str())),
            Sent::Rows(media_type, rows) => Some((media_type, rows)),
        };
        let question = Question { method, target: target.to_owned(), fields, body };
        let mut attempt = 1;
        loop {
            match self.way.ask(&question).await {
                Ok(reply) => return read(&reply, &self.way.name),
                Err(Lost::NoAnswer(_)) if again && attempt < ATTEMPTS => {
                    tokio::time::sleep(PAUSE * attempt).await;
                    attempt += 1;
                }
                Err(why) => return Err(lost(why, &self.way.name, again)),
            }
        }
    }

    /// All things of a list, page after page.
    async fn all(&self, path: &str, parameters: &str) -> Result<Vec<Value>, Failure> {
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let mut target = format!("{path}?limit={PAGE}{parameters}");
            if let Some(cursor) = &cursor {
                query_append(&mut target, "cursor", cursor);
            }
            let page = self.get(&target).await?;
            let next = page.cursor();
            let Value::Array(items) = page.result else { return Err(self.strange("no list")) };
            all.extend(items);
            // A cursor that does not move would be followed for ever.
            match next {
                Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
                Some(_) | None => return Ok(all),
            }
        }
    }

    /// All records of a kind, in the order of their ids.
    async fn records<B>(
        &self,
        kind: Kind,
        parameters: &str,
        body: impl Fn(Body) -> Option<B>,
    ) -> Result<Vec<Stored<B>>, Failure> {
        let path = format!("/v2/{}s", kind.label());
        let all = self.all(&path, &format!("&record=true{parameters}")).await?;
        all.into_iter().map(|record| self.record(kind, record, &body)).collect()
    }

    /// One record, as it is stored.
    async fn one<B>(&self, kind: Kind, id: &str, body: impl Fn(Body) -> Option<B>) -> Result<Stored<B>, Failure> {
        let target = format!("{}?record=true", path_of(kind, id)?);
        let found = self.get(&target).await.map_err(|failure| missing(failure, kind, id))?;
        self.record(kind, found.result, &body)
    }

    fn record<B>(&self, kind: Kind, record: Value, body: &impl Fn(Body) -> Option<B>) -> Result<Stored<B>, Failure> {
        let strange = || self.strange("a record that this version cannot read");
        let Value::Object(mut fields) = record else { return Err(strange()) };
        let (id, revision) = (fields.remove("id"), fields.remove("revision"));
        let (Some(Value::String(id)), Some(revision)) = (id, revision.and_then(|revision| revision.as_u64())) else {
            return Err(strange());
        };
        let parsed = Body::parse(&RecordId::new(kind, &id), &Value::Object(fields).to_string());
        let body = parsed.ok().and_then(body).ok_or_else(strange)?;
        Ok(Stored { id: id.into(), revision, body })
    }

    fn strange(&self, what: &str) -> Failure {
        Failure::Failed(format!("{} has answered with {what}; is it of another version?", self.way.name))
    }
}

/// The path of a record. A value that was given for an id is not sent: paths are in logs.
fn path_of(kind: Kind, id: &str) -> Result<String, Failure> {
    if kind == Kind::Key && looks_like_value(id) {
        return Err(crate::manage::Failure::LooksLikeValue.into());
    }
    let mut path = format!("/v2/{}s/", kind.label());
    push_segment(&mut path, id);
    Ok(path)
}

/// Writes an id as one segment of a path.
fn push_segment(path: &mut String, id: &str) {
    for byte in id.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b':' => path.push(char::from(byte)),
            // A segment of dots would be read as a way up.
            b'.' if id.bytes().any(|byte| byte != b'.') => path.push('.'),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
}

/// Whether an id is as long as a value, or of the shape of ours: brand, world, and the rest.
fn looks_like_value(id: &str) -> bool {
    let parts: Vec<&str> = id.splitn(3, '_').collect();
    matches!(parts[..], [_, "live" | "test", rest] if rest.len() >= 16)
}

/// What a server does not tell of what is not there: its name.
fn missing(failure: Failure, kind: Kind, id: &str) -> Failure {
    match failure {
        Failure::NotFound(_) if id.is_empty() => Failure::NotFound(format!("no such {}", kind.label())),
        Failure::NotFound(_) => crate::manage::Failure::NotFound(RecordId::new(kind, &printable(id))).into(),
        other => other,
    }
}

fn query_append(target: &mut String, name: &str, value: &str) {
    let mut parameters = String::new();
    query::append(&mut parameters, name, value);
    target.push('&');
    target.push_str(&parameters);
}
