//! Ways through the tree of options, and where in the world an option was given.

use std::fmt;

use super::secrecy::may_be_shown;

/// One step down the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// To an option of a map.
    Key(String),
    /// To an element of a list.
    Index(usize),
}

/// The way from the root to an option.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OptionPath(pub(super) Vec<Step>);

impl OptionPath {
    /// The way through these maps.
    pub(super) fn of<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        Self(names.into_iter().map(|name| Step::Key(name.into())).collect())
    }

    /// The way to an option of the map here.
    pub(super) fn key(&self, name: &str) -> Self {
        self.then(Step::Key(name.to_owned()))
    }

    /// The way to an element of the list here.
    pub(super) fn index(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }

    fn then(&self, step: Step) -> Self {
        self.join(&Self(vec![step]))
    }

    /// The way on from here.
    pub(super) fn join(&self, onward: &Self) -> Self {
        Self(self.0.iter().chain(&onward.0).cloned().collect())
    }

    /// The way to what this is part of, and the last step.
    pub(super) fn split_last(&self) -> Option<(Self, &Step)> {
        self.0.split_last().map(|(last, above)| (Self(above.to_vec()), last))
    }

    /// Whether this is part of what `above` leads to, or is it.
    pub(super) fn is_within(&self, above: &Self) -> bool {
        self.0.starts_with(&above.0)
    }
}

impl fmt::Display for OptionPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(name) => {
                    let dot = if nth == 0 { "" } else { "." };
                    let name = if may_be_shown(name) { name.as_str() } else { "…" };
                    write!(f, "{dot}{}", name.escape_debug())?;
                }
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A line and a column, both counted from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// Where an option was given, or is missing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the config file, or missing there.
    File {
        /// The file, as it was named.
        file: String,
        /// Where in it, if it is at any one place.
        position: Option<Position>,
    },
    /// In an environment variable of this name.
    Environment(String),
    /// In a `--set` flag, for the option of this path.
    Flag(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, position: None } => f.write_str(file),
            Self::File { file, position: Some(Position { line, column }) } => write!(f, "{file}:{line}:{column}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(path) => write!(f, "--set {path}"),
        }
    }
}
