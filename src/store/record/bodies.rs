//! What is in the records of keys, their secrets, and the scopes they act in.

use serde::{Deserialize, Serialize};

use crate::auth::grant::{Access, Environment, State, Timestamp};
use crate::auth::limit::Limit;
use crate::auth::scope::Scope;

/// A customer's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyBody {
    /// What people call it, 1 to 50 characters (V27).
    pub name: String,
    /// Always `api` (V26).
    #[serde(rename = "type", default)]
    pub key_type: KeyType,
    /// Who it was handed to, where the upstream wants to know users (B21); else it is told of the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The user whose account it is bound to: it works only while that user may use the API (B11).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Box<str>>,
    /// The key that it was made below: it never may more than that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Box<str>>,
    /// Where it acts; everywhere if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// Its world.
    pub env: Environment,
    /// What it may do.
    pub access: Access,
    /// Addresses and networks it may be used from; any if empty (V16).
    #[serde(default)]
    pub ips: Vec<String>,
    /// How often it may be used, such as `100/1m`; as often as it likes if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Limit>,
    /// When it ends; never if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Words by which people find it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Whether its value is kept sealed, for those who may look it up again (B9).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recoverable: bool,
    /// Whether it works.
    pub state: State,
    /// Who made it, if known (V17).
    pub created_by: Option<String>,
    /// When it was made.
    pub created_time: Timestamp,
    /// Who changed it last, if known.
    pub updated_by: Option<String>,
    /// When it was changed last.
    pub updated_time: Timestamp,
}

/// The one type of key there is (V26).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyType {
    /// A key for API requests.
    #[default]
    Api,
}

/// One value that opens a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretBody {
    /// The id of the key it opens.
    pub key: String,
    /// The characters of it that may be shown; foreign keys have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The declared shape of a foreign key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<String>,
    /// When it ends, if before its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// When it was made.
    pub created_time: Timestamp,
}

/// A node of the scope tree. What is above it follows from its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeBody {
    /// Whether keys in it and below work.
    pub state: ScopeState,
    /// When it was made.
    pub created_time: Timestamp,
}

/// The state of a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScopeState {
    /// Works.
    Active,
    /// All keys in it and below are refused.
    Suspended,
}
