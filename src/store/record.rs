//! Everything durable is a record: a kind, an id, the revision that last touched it, and a JSON body or a tombstone.
//!
//! The stores move bodies without reading them; here is what is in them. A body with a field that this version does not
//! know cannot be read and therefore grants nothing: the field may be a restriction. So while some programs are older than
//! others, those pass over kinds that they do not know, and refuse keys that lean on them: what `owner` or `parent` would
//! restrict, an older program never lets in.

mod bodies;
mod people;

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::bodies::{KeyBody, KeyType, ScopeBody, ScopeState, SecretBody};
pub use self::people::{
    BindingBody, PasswordBody, PasswordHash, RoleBody, SealedBody, SealedValue, Subject, UniqueBody, UserBody,
    UserState,
};
use crate::auth::digest::Digest;
use crate::auth::grant::Timestamp;
use crate::auth::scope::Scope;

/// The kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A node of the scope tree; its id is its path.
    Scope,
    /// A set of permissions; its id is its name.
    Role,
    /// A person.
    User,
    /// A key.
    Key,
    /// One value that opens a key; its id is its digest.
    Secret,
    /// A role that a user or a key has within a scope.
    Binding,
    /// What a user signs in with; its id is the user's.
    Password,
    /// A key's value that may be looked up again; its id is the key's.
    Sealed,
    /// A name that only one record may have, such as an e-mail address; its id is the name.
    Unique,
}

impl Kind {
    /// All kinds, owners before what they own.
    pub const ALL: [Self; 9] = [
        Self::Scope,
        Self::Role,
        Self::User,
        Self::Key,
        Self::Secret,
        Self::Binding,
        Self::Password,
        Self::Sealed,
        Self::Unique,
    ];

    /// The kinds that pulls give, in the order in which they give them.
    pub const REPLICATED: [Self; 6] = [Self::Scope, Self::Role, Self::User, Self::Key, Self::Secret, Self::Binding];

    /// Whether pulls give it. Every sidecar has what they give; the rest is only had by asking for it by its id, and where a
    /// store knows who asks, a sidecar is not told.
    pub const fn replicated(self) -> bool {
        match self {
            Self::Scope | Self::Role | Self::User | Self::Key | Self::Secret | Self::Binding => true,
            Self::Password | Self::Sealed | Self::Unique => false,
        }
    }

    /// As it is stored.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Scope => "scope",
            Self::Role => "role",
            Self::User => "user",
            Self::Key => "key",
            Self::Secret => "secret",
            Self::Binding => "binding",
            Self::Password => "password",
            Self::Sealed => "sealed",
            Self::Unique => "unique",
        }
    }

    /// Reads [`Kind::label`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.label() == text)
    }
}

/// What a record is known by. Orders by kind, then by id; ids of keys order by creation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// Its kind.
    pub kind: Kind,
    /// Its id within the kind.
    pub id: Box<str>,
}

impl RecordId {
    /// The record of that kind and id.
    pub fn new(kind: Kind, id: &str) -> Self {
        Self { kind, id: id.into() }
    }

    /// The record of a key.
    pub fn key(id: &str) -> Self {
        Self::new(Kind::Key, id)
    }

    /// The record of a secret.
    pub fn secret(digest: Digest) -> Self {
        Self { kind: Kind::Secret, id: digest.to_record_id().into() }
    }

    /// The record of a scope.
    pub fn scope(scope: &Scope) -> Self {
        Self { kind: Kind::Scope, id: scope.to_string().into() }
    }
}

impl fmt::Display for RecordId {
    /// The id of a secret is a digest, and a digest is never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Secret => f.write_str("a secret"),
            Kind::Unique => match self.id.strip_prefix("email:") {
                Some(address) => write!(f, "the e-mail address {address}"),
                // The id of a link is a function of what is in it.
                None => f.write_str("a link"),
            },
            Kind::Scope | Kind::Role | Kind::User | Kind::Key | Kind::Binding | Kind::Password | Kind::Sealed => {
                write!(f, "{} {}", self.kind.label(), self.id)
            }
        }
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A record as a store hands it out.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is known by.
    pub id: RecordId,
    /// The number of the revision that last touched it.
    pub revision: u64,
    /// Its JSON body; `None` for a tombstone.
    pub body: Option<Box<str>>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.body.is_some() { "present" } else { "deleted" };
        write!(f, "{} ({state}, revision {})", self.id, self.revision)
    }
}

/// A body that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Of a scope.
    Scope(Scope, ScopeBody),
    /// Of a role.
    Role(RoleBody),
    /// Of a user.
    User(UserBody),
    /// Of a key.
    Key(KeyBody),
    /// Of a secret.
    Secret(Digest, SecretBody),
    /// Of a binding.
    Binding(BindingBody),
    /// Of a password.
    Password(PasswordBody),
    /// Of a sealed value.
    Sealed(SealedBody),
    /// Of a reservation.
    Unique(UniqueBody),
}

/// A record that this version cannot read. It grants nothing.
#[derive(Debug, thiserror::Error)]
#[error("{id} cannot be read: {why}")]
pub struct Unreadable {
    /// Which one.
    pub id: RecordId,
    why: String,
}

impl Body {
    /// Reads a record's body by its kind; its id too must be one of that kind.
    pub fn parse(id: &RecordId, json: &str) -> Result<Self, Unreadable> {
        let unreadable = |why: String| Unreadable { id: id.clone(), why };
        match id.kind {
            Kind::Scope => {
                let scope = Scope::parse(&id.id).map_err(|e| unreadable(e.to_string()))?;
                Ok(Self::Scope(scope, read(json).map_err(unreadable)?))
            }
            Kind::Unique => read(json).map(Self::Unique).map_err(unreadable),
            Kind::Secret => {
                let digest =
                    Digest::from_record_id(&id.id).ok_or_else(|| unreadable("its id is no digest".to_owned()))?;
                Ok(Self::Secret(digest, read(json).map_err(unreadable)?))
            }
            kind if !is_key_id(&id.id) => {
                Err(unreadable(format!("the id of a {} is 1 to 64 of A-Z a-z 0-9 . _ -", kind.label())))
            }
            Kind::Role => read(json).map(Self::Role).map_err(unreadable),
            Kind::User => read(json).map(Self::User).map_err(unreadable),
            Kind::Key => read(json).map(Self::Key).map_err(unreadable),
            Kind::Binding => read(json).map(Self::Binding).map_err(unreadable),
            Kind::Password => read(json).map(Self::Password).map_err(unreadable),
            Kind::Sealed => read(json).map(Self::Sealed).map_err(unreadable),
        }
    }
}

/// One kind of body.
impl Body {
    /// That of a scope.
    pub fn scope(self) -> Option<(Scope, ScopeBody)> {
        if let Self::Scope(scope, body) = self { Some((scope, body)) } else { None }
    }

    /// That of a role.
    pub fn role(self) -> Option<RoleBody> {
        if let Self::Role(body) = self { Some(body) } else { None }
    }

    /// That of a user.
    pub fn user(self) -> Option<UserBody> {
        if let Self::User(body) = self { Some(body) } else { None }
    }

    /// That of a key.
    pub fn key(self) -> Option<KeyBody> {
        if let Self::Key(body) = self { Some(body) } else { None }
    }

    /// That of a value that opens a key.
    pub fn secret(self) -> Option<(Digest, SecretBody)> {
        if let Self::Secret(digest, body) = self { Some((digest, body)) } else { None }
    }

    /// That of a binding.
    pub fn binding(self) -> Option<BindingBody> {
        if let Self::Binding(body) = self { Some(body) } else { None }
    }
}

/// Reads a body, or says which field cannot be read. serde's own words would quote the value.
fn read<T: DeserializeOwned>(json: &str) -> Result<T, String> {
    serde_json::from_str(json).map_err(|error| {
        let message = error.to_string();
        if let Some((field, _)) = message.split_once("missing field `").and_then(|(_, rest)| rest.split_once('`')) {
            return format!("it has no field `{field}`");
        }
        // Once more, with a record of the way: only those who have made a mistake wait for it.
        match serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_str(json)) {
            Err(error) if error.path().iter().next().is_some() => {
                format!("its field `{}` is wrong or unknown", error.path())
            }
            Err(_) | Ok(_) => "it is no JSON object".to_owned(),
        }
    })
}

/// The JSON of a body.
///
/// # Panics
/// Never: bodies hold only strings, lists and unit variants, which JSON can always write.
pub fn to_json(body: &impl Serialize) -> Box<str> {
    serde_json::to_string(body).expect("bodies hold nothing that JSON cannot write").into()
}

/// Whether a text can be the id of a key, or of a user, role or binding: it goes into headers and logs as it is.
pub fn is_key_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// A new id of 21 characters: 10 of time, so that ids sort by creation, and 11 of chance (V10).
pub fn new_id(now: Timestamp) -> Result<String, getrandom::Error> {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let chance = u128::from(getrandom::u64()?) << 64 | u128::from(getrandom::u64()?);
    let digits = |mut number: u128, count: usize| {
        let mut text = vec![0; count];
        for digit in text.iter_mut().rev() {
            *digit = DIGITS[(number % 36) as usize];
            number /= 36;
        }
        text
    };
    let bytes = [digits(now.millis().into(), 10), digits(chance, 11)].concat();
    Ok(bytes.into_iter().map(char::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_21_characters_that_sort_by_creation() {
        let ids: Vec<String> = [1, 2, 1_800_000_000_000].map(|t| new_id(Timestamp::from_millis(t)).unwrap()).into();
        assert!(ids.is_sorted());
        assert!(ids.iter().all(|id| id.len() == 21 && is_key_id(id)));
        assert_ne!(new_id(Timestamp::from_millis(1)).unwrap(), ids[0]);
    }

    #[test]
    fn what_cannot_be_read_whole_is_not_read_at_all() {
        let good = r#"{"name":"CI","env":"live","access":"read-only","state":"active","created_by":null,
            "created_time":"2026-01-01T00:00:00.000Z","updated_by":null,"updated_time":"2026-01-01T00:00:00.000Z"}"#;
        assert!(matches!(Body::parse(&RecordId::key("k1"), good), Ok(Body::Key(_))));
        for (id, json) in [
            (RecordId::key("k1"), good.replace("read-only", "all")),
            (RecordId::key("k1"), good.replace("\"env\"", "\"quota\":1,\"env\"")),
            (RecordId::key("k1"), good.replace("\"access\":\"read-only\",", "")),
            (RecordId::key("k1"), good.replace("\"env\"", "\"rate_limit\":\"0/1m\",\"env\"")),
            (RecordId::key("k 1"), good.to_owned()),
            (RecordId::key("k1"), good[..40].to_owned()),
            (RecordId { kind: Kind::Secret, id: "xyz".into() }, r#"{"key":"k1"}"#.to_owned()),
            (RecordId { kind: Kind::Scope, id: "acme".into() }, "{}".to_owned()),
        ] {
            assert!(Body::parse(&id, &json).is_err(), "{json}");
        }
    }

    /// An older version has no use for the new fields and kinds: where they are used, it lets nobody in.
    #[test]
    fn bodies_of_older_versions_are_read_and_written_as_they_were() {
        let old = r#"{"name":"CI","type":"api","env":"live","access":"read-only","ips":[],"state":"active","created_by":null,"created_time":"2026-01-01T00:00:00.000Z","updated_by":null,"updated_time":"2026-01-01T00:00:00.000Z"}"#;
        let Ok(Body::Key(mut body)) = Body::parse(&RecordId::key("k1"), old) else { panic!("it cannot be read") };
        assert_eq!(&*to_json(&body), old, "what is not used must not appear: an older version would refuse it");
        (body.owner, body.parent) = (Some("u1".into()), Some("k0".into()));
        (body.tags, body.recoverable) = (vec!["radio".to_owned()], true);
        let new = to_json(&body);
        assert!(["owner", "parent", "tags", "recoverable"].iter().all(|field| new.contains(field)), "{new}");
        assert_eq!(Body::parse(&RecordId::key("k1"), &new).unwrap(), Body::Key(body));
    }

    #[test]
    fn kinds_are_listed_in_their_order_and_those_that_pulls_give_come_first() {
        assert!(Kind::ALL.is_sorted() && Kind::ALL.iter().all(|kind| Kind::parse(kind.label()) == Some(*kind)));
        assert!(Kind::ALL.into_iter().filter(|kind| kind.replicated()).eq(Kind::REPLICATED));
    }

    #[test]
    fn the_id_of_a_secret_is_not_printed() {
        let id = RecordId { kind: Kind::Secret, id: "4297c3da985becfc784a268dfab43ef1".into() };
        let record = Record { id: id.clone(), revision: 1, body: None };
        let unreadable = Body::parse(&id, "{").unwrap_err();
        assert!(![format!("{id} {id:?} {record:?} {unreadable} {unreadable:?}")].concat().contains("4297"));
    }
}
