//! What is in the files: found, read and parsed as one state.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

use crate::auth::digest::PepperCheck;
use crate::files::stamp::Stamp;
use crate::store::chain;
use crate::store::record::{Body, Kind, Record, RecordId, to_json};

/// How often to start over when the files change while they are read, and how long to wait in between.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// Why the files are not a state of the store. Never repeats what is in them but the ids of keys and scopes.
#[derive(Debug)]
pub(super) enum Refused {
    /// Which file, which record, what.
    Because(String),
    /// They name another pepper.
    WrongPepper,
}

/// The files as they were at one moment.
pub(super) struct Files(Vec<(PathBuf, Vec<u8>)>);

impl Files {
    /// Reads the file, or every `.json`, `.yaml` and `.yml` file of the folder that is not hidden.
    pub(super) fn load(path: &Path) -> Result<Self, Refused> {
        let mut outcome = Self::load_once(path);
        for _ in 1..ATTEMPTS {
            if let Ok(Some(files)) = outcome {
                return Ok(files);
            }
            std::thread::sleep(PAUSE);
            outcome = Self::load_once(path);
        }
        outcome?.ok_or_else(|| Refused::Because("it keeps changing while it is read".to_owned()))
    }

    /// A mount swaps all files at once, but they can only be read one after the other: `None` if something changed
    /// meanwhile.
    fn load_once(path: &Path) -> Result<Option<Self>, Refused> {
        let found = find(path)?;
        let files = read(&found)?;
        Ok((find(path)? == found).then_some(Self(files)))
    }

    /// A hash of names and bytes.
    pub(super) fn hash(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        for (path, bytes) in &self.0 {
            hasher.update(Sha256::digest(path.as_os_str().as_encoded_bytes()));
            hasher.update(Sha256::digest(bytes));
        }
        hasher.finalize().into()
    }

    /// The records in them.
    pub(super) fn parse(&self, check: PepperCheck) -> Result<Content, Refused> {
        let mut records = BTreeMap::new();
        for (path, bytes) in &self.0 {
            let document = Document::parse(path, bytes)?;
            document.is_peppered_with(path, check)?;
            for entry in document.records.ok_or_else(|| because(path, &"the document has no list `records`"))? {
                let (id, body) = entry.into_record(path)?;
                match records.entry(id) {
                    Slot::Vacant(slot) => slot.insert((path, body)),
                    Slot::Occupied(slot) => {
                        let first: &(&PathBuf, _) = slot.get();
                        return Err(Refused::Because(format!(
                            "{} is both in {} and in {}",
                            slot.key(),
                            first.0.display(),
                            path.display()
                        )));
                    }
                };
            }
        }
        Ok(Content { records: records.into_iter().map(|(id, (_, body))| (id, body)).collect() })
    }
}

/// Finds the files, in the order of their names.
fn find(path: &Path) -> Result<Vec<(PathBuf, Stamp)>, Refused> {
    let cannot = |error| because(path, &error);
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    if !metadata.is_dir() {
        return Ok(vec![(path.to_owned(), Stamp::from(&metadata))]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if !is_document(&path) {
            continue;
        }
        // Follows links: in a mounted Secret every visible name is one.
        let metadata = std::fs::metadata(&path).map_err(|error| because(&path, &error))?;
        if metadata.is_file() {
            found.push((path, Stamp::from(&metadata)));
        }
    }
    if found.is_empty() {
        let why = "the folder has no .json, .yaml or .yml file; for a store without keys, one with `records: []`";
        return Err(Refused::Because(why.to_owned()));
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

fn is_document(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden
        && path.extension().is_some_and(|extension| extension == "json" || extension == "yaml" || extension == "yml")
}

fn read(found: &[(PathBuf, Stamp)]) -> Result<Vec<(PathBuf, Vec<u8>)>, Refused> {
    let read = |(path, _): &(PathBuf, Stamp)| match std::fs::read(path) {
        Ok(bytes) => Ok((path.clone(), bytes)),
        Err(error) => Err(because(path, &error)),
    };
    found.iter().map(read).collect()
}

fn because(path: &Path, why: &dyn fmt::Display) -> Refused {
    Refused::Because(format!("{}: {why}", path.display()))
}

/// All records, each of which can be read.
pub(super) struct Content {
    /// In the order of pulls.
    pub(super) records: BTreeMap<RecordId, Box<str>>,
}

impl Content {
    /// What stands for the history: a file has none but what is in it now.
    pub(super) fn chain(&self) -> [u8; 32] {
        chain::content(self.records.iter().map(|(id, body)| (id, Some(&**body))))
    }

    /// The records of a pull.
    pub(super) fn into_records(self, revision: u64) -> Vec<Record> {
        let replicated = self.records.into_iter().filter(|(id, _)| id.kind.replicated());
        replicated.map(|(id, body)| Record { id, revision, body: Some(body) }).collect()
    }
}

/// One file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    /// Which pepper the digests were made with.
    #[serde(default)]
    pepper_check: Option<String>,
    /// Always there. An option, because otherwise YAML's `records:`, with nothing behind it, would be an empty list, and
    /// that is what is left of a file that was cut off.
    records: Option<Vec<Entry>>,
}

/// One record in a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    kind: Kind,
    id: String,
    body: Fields,
}

impl Document {
    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Refused> {
        let text = std::str::from_utf8(bytes).map_err(|_| because(path, &"it is not UTF-8"))?;
        if text.trim().is_empty() {
            return Err(because(path, &"it is empty; for a store without keys, write `records: []`"));
        }
        let yaml = match path.extension() {
            Some(extension) if extension == "json" => false,
            Some(extension) if extension == "yaml" || extension == "yml" => true,
            Some(_) | None => !text.trim_start().starts_with('{'),
        };
        let document = if yaml { from_yaml(text) } else { from_json(text) };
        document.map_err(|why| because(path, &why))
    }

    fn is_peppered_with(&self, path: &Path, check: PepperCheck) -> Result<(), Refused> {
        match self.pepper_check.as_deref().map(PepperCheck::from_hex) {
            None => Ok(()),
            Some(Some(found)) if found == check => Ok(()),
            Some(Some(_)) => Err(Refused::WrongPepper),
            Some(None) => Err(because(path, &"pepper_check is not 64 hex digits")),
        }
    }
}

impl Entry {
    fn into_record(self, path: &Path) -> Result<(RecordId, Box<str>), Refused> {
        let id = RecordId { kind: self.kind, id: self.id.into() };
        let body = serde_json::Value::Object(self.body.0).to_string();
        // Written again, so that every store has the same bytes for it, and that two spellings of one digest are one secret.
        match Body::parse(&id, &body) {
            Ok(Body::Scope(scope, body)) => Ok((RecordId::scope(&scope), to_json(&body))),
            Ok(Body::Role(body)) => Ok((id, to_json(&body))),
            Ok(Body::User(body)) => Ok((id, to_json(&body))),
            Ok(Body::Key(body)) => Ok((id, to_json(&body))),
            Ok(Body::Binding(body)) => Ok((id, to_json(&body))),
            Ok(Body::Password(body)) => Ok((id, to_json(&body))),
            Ok(Body::Sealed(body)) => Ok((id, to_json(&body))),
            Ok(Body::Unique(body)) => Ok((id, to_json(&body))),
            Ok(Body::Secret(digest, body)) => Ok((RecordId::secret(digest), to_json(&body))),
            Err(unreadable) => Err(because(path, &unreadable)),
        }
    }
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let (line, column) = (error.inner().line(), error.inner().column());
        match error.inner().classify() {
            serde_json::error::Category::Eof => "the JSON ends too early: is it cut off?".to_owned(),
            serde_json::error::Category::Syntax | serde_json::error::Category::Io => {
                format!("line {line} column {column} is not JSON")
            }
            serde_json::error::Category::Data => {
                format!("line {line} column {column}: {}", mistake(&error.path().to_string(), &error.inner()))
            }
        }
    })?;
    deserializer.end().map_err(|error| format!("line {}: something follows the document", error.line()))?;
    Ok(value)
}

fn from_yaml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_path_to_error::deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| {
        let line = error.inner().location().map_or(1, |location| location.line());
        format!("near line {line}: {}", mistake(&error.path().to_string(), &error.inner()))
    })
}

/// Says what is wrong without serde's words, which would quote the value.
fn mistake(path: &str, error: &dyn fmt::Display) -> String {
    let (message, place) = (error.to_string(), if path == "." { "the document" } else { path });
    match message.split_once("missing field `").and_then(|(_, rest)| rest.split_once('`')) {
        Some((field, _)) => format!("{place} has no field `{field}`"),
        None => format!("{place} is wrong or unknown"),
    }
}

/// The fields of a body. A field that is there twice is refused: who reads the file would see only one of them.
struct Fields(serde_json::Map<String, serde_json::Value>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor).map(Self)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = serde_json::Map<String, serde_json::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fields of a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut fields = serde_json::Map::new();
        while let Some((name, value)) = access.next_entry()? {
            if fields.insert(name, value).is_some() {
                return Err(A::Error::custom("a field is there twice"));
            }
        }
        Ok(fields)
    }
}
