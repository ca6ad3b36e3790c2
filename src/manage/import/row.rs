//! One row of an import: a value of another system and the key that it opens, read from its fields.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use zeroize::Zeroizing;

use super::columns::{Fields, Text, Texts};
use crate::auth::Locksmith;
use crate::auth::address::Networks;
use crate::auth::digest::{Digest, parse_hex};
use crate::auth::grant::{Access, Environment, State, Timestamp};
use crate::auth::limit::Limit;
use crate::auth::scope::Scope;
use crate::manage::values::{KeyName, RateLimit, UserName, is_new_key_id};
use crate::store::record::{KeyBody, KeyType, SecretBody};

/// Why a row is rejected. It never repeats a field, since any of them may hold a value by mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(Cow<'static, str>);

impl From<&'static str> for Reason {
    fn from(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A row as it is in the file. There is a value in it, so it does not print, and it is wiped.
pub struct Raw(Zeroizing<Box<[u8]>>);

impl Raw {
    /// A copy of a row.
    pub fn new(row: &[u8]) -> Self {
        Self(Zeroizing::new(row.into()))
    }

    /// The bytes, for a file that only its owner can read.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Raw")
    }
}

/// A row that was rejected.
#[derive(Debug)]
pub struct Rejection {
    /// Where it is.
    pub line: u64,
    /// The row as it is in the file.
    pub raw: Raw,
    /// Why.
    pub reason: Reason,
}

/// A row that can be imported, unless the store has something against it.
#[derive(Debug)]
pub(super) struct Row {
    /// Where it is.
    pub(super) line: u64,
    /// The row as it is in the file.
    pub(super) raw: Raw,
    /// The key's id, if the row has one.
    pub(super) id: Option<Box<str>>,
    /// The key's name, if the row has one.
    pub(super) name: Option<String>,
    /// What its value is stored by.
    pub(super) digest: Digest,
    /// What else its key will be.
    pub(super) settings: Settings,
    hint: Option<String>,
    shape: Option<String>,
}

/// What a row says of its key besides id and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// Where it acts.
    pub(super) scope: Option<Scope>,
    access: Access,
    ips: Vec<String>,
    env: Environment,
    expires_at: Option<Timestamp>,
    /// Who it was handed to.
    pub(super) user: Option<String>,
    rate_limit: Option<Limit>,
}

impl Settings {
    /// Those of a key that is there.
    pub(super) fn of(key: KeyBody) -> Self {
        let KeyBody { user, scope, env, access, ips, rate_limit, expires_at, .. } = key;
        Self { scope, access, ips, env, expires_at, user, rate_limit }
    }
}

impl Hash for Settings {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { scope, access, ips, env, expires_at, user, rate_limit } = self;
        (scope, access.label(), ips, env.label(), expires_at, user, rate_limit).hash(state);
    }
}

/// What is known of a value before it is forgotten.
struct Value {
    digest: Digest,
    hint: Option<String>,
    shape: Option<String>,
    env: Option<Environment>,
}

impl Row {
    /// Reads a row from its fields.
    pub(super) fn read(fields: &Fields<'_>, line: u64, raw: &[u8], locksmith: &Locksmith) -> Result<Self, Reason> {
        let value = Value::read(fields, locksmith)?;
        let env = match (given(&fields.env).map(environment).transpose()?, value.env) {
            (Some(column), Some(own)) if column != own => {
                return Err(Reason::from("`env` is not the one in its value"));
            }
            (Some(env), _) | (None, Some(env)) => env,
            (None, None) => Environment::Live,
        };
        let settings = Settings {
            scope: given(&fields.scope).map(scope).transpose()?,
            access: given(&fields.access).map_or(Ok(Access::ReadWrite), access)?,
            ips: fields.ips.as_ref().map_or(Ok(vec![]), networks)?,
            env,
            expires_at: given(&fields.expires).map(time).transpose()?,
            user: given(&fields.user).map(user).transpose()?,
            rate_limit: given(&fields.rate_limit).map_or(Ok(None), rate_limit)?,
        };
        let id = given(&fields.id).map(id).transpose()?;
        let name = given(&fields.name).map(name).transpose()?;
        let Value { digest, hint, shape, .. } = value;
        Ok(Self { line, raw: Raw::new(raw), id, name, digest, settings, hint, shape })
    }

    /// The record of its key under that id.
    pub(super) fn key_body(&self, id: &str, actor: &str, now: Timestamp) -> KeyBody {
        let Settings { scope, access, ips, env, expires_at, user, rate_limit } = self.settings.clone();
        KeyBody {
            name: self.name.clone().unwrap_or_else(|| default_name(id)),
            key_type: KeyType::Api,
            owner: None,
            parent: None,
            tags: vec![],
            recoverable: false,
            user,
            scope,
            env,
            access,
            ips,
            rate_limit,
            expires_at,
            state: State::Active,
            created_by: Some(actor.to_owned()),
            created_time: now,
            updated_by: Some(actor.to_owned()),
            updated_time: now,
        }
    }

    /// The record of its value.
    pub(super) fn secret_body(&self, id: &str, now: Timestamp) -> SecretBody {
        let (hint, shape) = (self.hint.clone(), self.shape.clone());
        SecretBody { key: id.to_owned(), hint, shape, not_after: None, created_time: now }
    }

    /// The columns in which it differs from the key that has its value already. A key that was disabled or revoked
    /// since it was imported stays so.
    pub(super) fn differences(&self, id: &str, key: KeyBody) -> Vec<&'static str> {
        let name = self.name.clone().unwrap_or_else(|| default_name(id));
        let (name_differs, own, theirs) = (name != key.name, &self.settings, Settings::of(key));
        let columns = [
            ("id", self.id.as_ref().is_some_and(|own| **own != *id)),
            ("name", name_differs),
            ("access", own.access != theirs.access),
            ("ips", own.ips != theirs.ips),
            ("scope", own.scope != theirs.scope),
            ("env", own.env != theirs.env),
            ("expires", own.expires_at != theirs.expires_at),
            ("user", own.user != theirs.user),
            ("rate_limit", own.rate_limit != theirs.rate_limit),
        ];
        columns.into_iter().filter_map(|(column, differs)| differs.then_some(column)).collect()
    }
}

impl Value {
    fn read(fields: &Fields<'_>, locksmith: &Locksmith) -> Result<Self, Reason> {
        match (given(&fields.value), given(&fields.sha256)) {
            (Some(value), None) => {
                let shown = [&fields.id, &fields.name, &fields.user];
                if shown.into_iter().any(|field| given(field) == Some(value)) {
                    return Err(Reason::from("its value is also its id, name or user, and those are shown and logged"));
                }
                Self::of_text(value, locksmith)
            }
            (None, Some(hash)) => {
                let hash = parse_hex(hash).ok_or(Reason::from("`sha256` is not 64 hex digits"))?;
                Ok(Self { digest: locksmith.pepper.digest_of_sha256(&hash), hint: None, shape: None, env: None })
            }
            (Some(_), Some(_)) => Err(Reason::from("it has both a `value` and a `sha256`")),
            (None, None) => Err(Reason::from("it has no `value` and no `sha256`")),
        }
    }

    fn of_text(value: &str, locksmith: &Locksmith) -> Result<Self, Reason> {
        let format = &locksmith.format;
        let Some(well_formed) = format.parse(value.as_bytes()) else {
            let ours = format.bears_brand(value.as_bytes());
            let why = if ours { "its value begins like one of our own keys and is none" } else { NO_SHAPE };
            return Err(Reason::from(why));
        };
        let digest = well_formed.digest(&locksmith.pepper);
        if !format.bears_brand(value.as_bytes()) {
            let shape = format.shape_of(value.as_bytes()).map(|shape| shape.name.clone());
            return Ok(Self { digest, hint: None, shape, env: None });
        }
        // Keys of our own say in their second part which world they belong to.
        let env = value.split('_').nth(1).map(environment).transpose()?;
        Ok(Self { digest, hint: format.hint(value).map(str::to_owned), shape: None, env })
    }
}

const NO_SHAPE: &str = "its value has none of the forms that `keys.shapes` in the config declares";

/// A field without the spaces around it, if anything is left.
fn given<'f>(field: &'f Option<Text<'_>>) -> Option<&'f str> {
    field.as_ref().map(|text| text.0.trim()).filter(|text| !text.is_empty())
}

/// A key without a name is called by its id, as far as that fits.
pub(super) fn default_name(id: &str) -> String {
    id.chars().take(50).collect()
}

fn id(text: &str) -> Result<Box<str>, Reason> {
    let fits = is_new_key_id(text);
    fits.then(|| text.into()).ok_or(Reason::from("`id` must be 1 to 64 of A-Z a-z 0-9 . _ - and no word of the API"))
}

fn name(text: &str) -> Result<String, Reason> {
    let name = KeyName::from_str(text).map(|name| name.0);
    name.map_err(|_| Reason::from("`name` must be 1 to 50 characters on one line, none of them hidden"))
}

fn user(text: &str) -> Result<String, Reason> {
    let user = UserName::from_str(text).map(|user| user.0);
    user.map_err(|_| Reason::from("`user` must be 1 to 255 characters on one line, none of them hidden"))
}

fn rate_limit(text: &str) -> Result<Option<Limit>, Reason> {
    let limit = RateLimit::from_str(text).map(|limit| limit.0);
    limit.map_err(|why| Reason::from(format!("`rate_limit`: {why}")))
}

fn access(text: &str) -> Result<Access, Reason> {
    match text {
        "rw" | "read-write" => Ok(Access::ReadWrite),
        "ro" | "read-only" => Ok(Access::ReadOnly),
        _ => Err(Reason::from("`access` must be rw, ro, read-write or read-only")),
    }
}

fn environment(text: &str) -> Result<Environment, Reason> {
    match text {
        "live" => Ok(Environment::Live),
        "test" => Ok(Environment::Test),
        _ => Err(Reason::from("`env` must be live or test")),
    }
}

fn scope(text: &str) -> Result<Scope, Reason> {
    Scope::parse(text).map_err(|_| Reason::from("`scope` must be a path such as organization:acme/project:p1"))
}

/// Durations are no good here: they would mean another time at each run.
fn time(text: &str) -> Result<Timestamp, Reason> {
    Timestamp::parse(text).ok_or(Reason::from("`expires` must be a time such as 2027-01-31 or 2027-01-31T12:00:00Z"))
}

fn networks(texts: &Texts<'_>) -> Result<Vec<String>, Reason> {
    let items: Vec<&str> = match texts {
        Texts::One(text) if text.0.trim() == "any" => vec![],
        Texts::One(text) => text.0.split(',').map(str::trim).filter(|item| !item.is_empty()).collect(),
        Texts::Many(items) => items.iter().map(|item| item.0.trim()).collect(),
    };
    let wrong = || Reason::from("`ips` must be addresses and networks between commas, or `any`");
    Networks::parse(items.iter().copied()).map_err(|_| wrong())?;
    Ok(items.into_iter().map(str::to_owned).collect())
}
