//! Where a store is, as the config and the command line write it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::postgres::Address;

/// Where a store is, as the config writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `sqlite:PATH`: the embedded database.
    Sqlite(PathBuf),
    /// `file:PATH`: a file, or a folder of files, that something else writes.
    File(PathBuf),
    /// `postgres://…`: a database that many sidecars share.
    Postgres(Box<Address>),
}

/// Why a text is not where a store is. The text itself is not repeated: an address may contain a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotALocation {
    /// One of the stores that are planned and not there.
    #[error("this version keeps its records in sqlite:PATH, postgres://… or file:PATH; NATS is not in it yet")]
    NotYet,
    /// Nothing known.
    #[error(
        "a store is sqlite:PATH (an embedded database), postgres://USER@HOST/DATABASE or file:PATH (files that something \
         else writes)"
    )]
    Unknown,
    /// A URL with a mistake.
    #[error("{0}")]
    Address(&'static str),
    /// The path is missing.
    #[error("the path after the colon is missing")]
    NoPath,
}

impl Location {
    /// Reads a location; a relative path starts at `base`, usually the folder of the config file.
    pub fn parse(text: &str, base: &Path) -> Result<Self, NotALocation> {
        let text = text.trim();
        let (scheme, path) = text.split_once(':').ok_or(NotALocation::Unknown)?;
        let location = match scheme {
            "sqlite" => Self::Sqlite,
            "file" => Self::File,
            "postgres" | "postgresql" => {
                let address = Address::parse(text, base).map_err(NotALocation::Address)?;
                return Ok(Self::Postgres(Box::new(address)));
            }
            "nats" => return Err(NotALocation::NotYet),
            _ => return Err(NotALocation::Unknown),
        };
        if path.is_empty() {
            return Err(NotALocation::NoPath);
        }
        // Walking the components drops the `./` that configs like to write.
        Ok(location(base.join(path).components().collect()))
    }
}

impl Location {
    /// Whether opening it would make a new, empty store.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Sqlite(path) => !path.exists(),
            Self::File(_) | Self::Postgres(_) => false,
        }
    }

    /// How often to pull when no hint comes: as often as it costs next to nothing.
    pub const fn poll_interval(&self) -> Duration {
        match self {
            Self::Sqlite(_) => Duration::from_millis(250),
            Self::File(_) => Duration::from_secs(10),
            Self::Postgres(_) => Duration::from_secs(1),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Postgres(address) => address.fmt(f),
        }
    }
}
