//! The tree that keys act in: domain > organization > project > scene (seed C18). A scope covers all below it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A level of the tree, highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// A private label's whole domain (C19).
    Domain,
    /// One customer (C20).
    Organization,
    /// A project of an organization (C21).
    Project,
    /// A scene of a project (C22).
    Scene,
}

impl Level {
    /// All levels, highest first.
    pub const ALL: [Self; 4] = [Self::Domain, Self::Organization, Self::Project, Self::Scene];

    /// As in scopes and in the names of captures.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Domain => "domain",
            Self::Organization => "organization",
            Self::Project => "project",
            Self::Scene => "scene",
        }
    }

    /// Reads [`Level::label`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.label() == text)
    }

    /// The word after `APIKEY:` in an `Authorization` header (C6): the label in capitals.
    pub fn from_word(word: &[u8]) -> Option<Self> {
        let capitals = word.iter().all(u8::is_ascii_uppercase);
        Self::ALL.into_iter().find(|level| capitals && level.label().as_bytes().eq_ignore_ascii_case(word))
    }
}

/// One step down the tree: a level and the id of a node at it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Step {
    /// Its level.
    pub level: Level,
    /// Its id, `[A-Za-z0-9_.-]{1,64}`.
    pub id: Box<str>,
}

/// A node of the tree, named by the way down to it: `organization:acme/project:p1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(Vec<Step>);

/// Why a text is no scope.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is no scope; write it as its path, such as organization:acme or organization:acme/project:p1 \
     (levels: domain, organization, project, scene; ids: up to 64 of A-Z a-z 0-9 . _ -)"
)]
pub struct NotAScope(String);

impl Scope {
    /// Reads a path whose levels follow one another downwards without a gap.
    pub fn parse(text: &str) -> Result<Self, NotAScope> {
        let steps: Option<Vec<Step>> = text.split('/').map(Step::parse).collect();
        let steps = steps.filter(|steps| steps.is_sorted_by(|a, b| a.level as u8 + 1 == b.level as u8));
        steps.map(Self).ok_or_else(|| NotAScope(text.to_owned()))
    }

    /// The scope right above, if any.
    pub fn parent(&self) -> Option<Self> {
        let (_, above) = self.0.split_last()?;
        (!above.is_empty()).then(|| Self(above.to_vec()))
    }

    /// The steps down to it, highest first; never empty.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Its own step, the last one.
    pub fn step(&self) -> &Step {
        &self.0[self.0.len() - 1]
    }

    /// The id it has at a level.
    pub fn id_at(&self, level: Level) -> Option<&str> {
        self.0.iter().find(|step| step.level == level).map(|step| &*step.id)
    }

    /// Whether `other` is this scope or below it.
    pub fn covers(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }
}

impl Step {
    fn parse(text: &str) -> Option<Self> {
        let (level, id) = text.split_once(':')?;
        let fits = (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        fits.then_some(Self { level: Level::parse(level)?, id: id.into() })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Step { level, id }) in self.0.iter().enumerate() {
            let slash = if i == 0 { "" } else { "/" };
            write!(f, "{slash}{}:{id}", level.label())?;
        }
        Ok(())
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_a_path_down_the_tree() {
        for (text, fits) in [
            ("organization:acme", true),
            ("domain:d/organization:acme/project:p-1/scene:s.1_2", true),
            ("project:p1", true),
            ("organization:acme/scene:s1", false),
            ("project:p1/organization:acme", false),
            ("organization:acme/organization:b", false),
            ("organization:", false),
            ("organization:a b", false),
            ("team:acme", false),
            ("acme", false),
            ("organization:acme/", false),
            ("", false),
        ] {
            let parsed = Scope::parse(text);
            assert_eq!(parsed.is_ok(), fits, "{text}");
            assert!(parsed.is_err() || parsed.is_ok_and(|scope| scope.to_string() == text));
        }
    }

    #[test]
    fn a_scope_covers_itself_and_what_is_below() {
        for (above, below, covers) in [
            ("organization:acme", "organization:acme", true),
            ("organization:acme", "organization:acme/project:p1", true),
            ("organization:acme/project:p1", "organization:acme", false),
            ("organization:acme", "organization:acme2", false),
            ("organization:acme", "domain:d/organization:acme", false),
        ] {
            let (a, b) = (Scope::parse(above).unwrap(), Scope::parse(below).unwrap());
            assert_eq!(a.covers(&b), covers, "{above} {below}");
        }
        let scope = Scope::parse("organization:acme/project:p1").unwrap();
        assert_eq!(scope.parent().map(|s| s.to_string()).as_deref(), Some("organization:acme"));
        assert_eq!(scope.parent().and_then(|s| s.parent()), None);
        assert_eq!((scope.id_at(Level::Organization), scope.id_at(Level::Scene)), (Some("acme"), None));
    }

    #[test]
    fn the_word_of_a_header_is_a_level_in_capitals() {
        for (word, level) in [
            ("ORGANIZATION", Some(Level::Organization)),
            ("SCENE", Some(Level::Scene)),
            ("organization", None),
            ("Organization", None),
            ("TEAM", None),
            ("", None),
        ] {
            assert_eq!(Level::from_word(word.as_bytes()), level, "{word}");
        }
    }
}
