//! Collects everything that is wrong with a config, each with its place, so that one run tells all of it.

use std::fmt;

use super::document::{self, Part};
use super::place::{OptionPath, Place, Position, Step};

/// More than anybody reads at once, and few enough that the places of all are found in no time.
const MOST_FINDINGS: usize = 100;

/// One thing that is wrong or doubtful.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where it was given, or is missing.
    pub place: Place,
    /// The option that it is about, such as `proxy.listen` or `routes[2].path`; empty where it is about the whole.
    pub path: String,
    /// What is wrong, and what to do instead. Never a secret.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, path, message } = self;
        match place {
            Place::Flag(named) if named == path => write!(f, "{place}: {message}"),
            Place::File { .. } | Place::Environment(_) | Place::Flag(_) if path.is_empty() => {
                write!(f, "{place}: {message}")
            }
            Place::File { .. } | Place::Environment(_) | Place::Flag(_) => write!(f, "{place}: {path}: {message}"),
        }
    }
}

/// Why a config is not used: everything that is wrong with it. Prints as one line for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes {
    /// What is wrong, in the order of the file.
    pub mistakes: Vec<Finding>,
    /// How many more there are than `mistakes` lists.
    pub more: usize,
    /// What is only doubtful.
    pub warnings: Vec<Finding>,
}

impl Mistakes {
    /// How many there are, in words.
    pub fn count(&self) -> String {
        match self.mistakes.len() + self.more {
            1 => "1 mistake".to_owned(),
            count => format!("{count} mistakes"),
        }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, mistake) in self.mistakes.iter().enumerate() {
            let newline = if nth == 0 { "" } else { "\n" };
            write!(f, "{newline}{mistake}")?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// What was found so far, and what it takes to say where.
pub(super) struct Report {
    file: String,
    text: String,
    /// Options whose value is not the file's, and where it is from.
    overrides: Vec<(OptionPath, Place)>,
    dropped: Vec<OptionPath>,
    found: Mistakes,
}

impl Report {
    /// Nothing was found yet in this file.
    pub(super) fn new(file: String, text: String) -> Self {
        Self { file, text, overrides: Vec::new(), dropped: Vec::new(), found: Mistakes::default() }
    }

    /// The text of the file.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// From now on, the value of an option is not the file's. Later ones hide earlier ones.
    pub(super) fn add_override(&mut self, path: OptionPath, place: Place) {
        self.overrides.push((path, place));
    }

    /// From now on, paths are those of a tree without these elements of lists, given in order.
    pub(super) fn set_dropped(&mut self, dropped: Vec<OptionPath>) {
        self.dropped = dropped;
    }

    /// The value at a path is wrong.
    pub(super) fn mistake(&mut self, at: &OptionPath, message: impl Into<String>) {
        self.add(at, Part::Value, message.into());
    }

    /// The name at the end of a path is wrong.
    pub(super) fn wrong_name(&mut self, at: &OptionPath, message: impl Into<String>) {
        self.add(at, Part::Name(0), message.into());
    }

    /// An option was given that many times before.
    pub(super) fn repeated(&mut self, at: &OptionPath, before: usize) {
        self.add(at, Part::Name(before), "is given more than once; keep one of them".to_owned());
    }

    /// Something is wrong that has a place of its own.
    pub(super) fn mistake_at(&mut self, place: Place, path: &OptionPath, message: impl Into<String>) {
        self.found.mistakes.push(Finding { place, path: path.to_string(), message: message.into() });
    }

    /// The text cannot be read at all, from this position on.
    pub(super) fn unreadable(&mut self, position: Option<Position>, message: String) {
        self.mistake_at(Place::File { file: self.file.clone(), position }, &OptionPath::default(), message);
    }

    /// Something is doubtful, but no reason to stop.
    pub(super) fn warn(&mut self, at: &OptionPath, message: impl Into<String>) {
        let path = self.original(at);
        let finding =
            Finding { place: self.place_of(&path, Part::Value), path: path.to_string(), message: message.into() };
        self.found.warnings.push(finding);
    }

    /// Something is doubtful about an environment variable.
    pub(super) fn warn_of_variable(&mut self, name: &str, message: String) {
        let place = Place::Environment(name.to_owned());
        self.found.warnings.push(Finding { place, path: String::new(), message });
    }

    /// The value of a result, or else a mistake.
    pub(super) fn take<T>(&mut self, at: &OptionPath, result: Result<T, impl fmt::Display>) -> Option<T> {
        result.map_err(|error| self.mistake(at, error.to_string())).ok()
    }

    /// Whether something at a path, or within it, is known to be wrong.
    pub(super) fn has_mistake_within(&self, at: &OptionPath) -> bool {
        let path = self.original(at).to_string();
        let within = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
        self.found.mistakes.iter().any(|mistake| mistake.path.strip_prefix(&path).is_some_and(within))
    }

    /// What was made of the config, with its warnings, if nothing is wrong with it.
    ///
    /// # Errors
    /// When there are mistakes.
    pub(super) fn finish<T>(mut self, made: impl FnOnce(Vec<Finding>) -> Option<T>) -> Result<T, Mistakes> {
        if !self.found.mistakes.is_empty() {
            return Err(self.into_mistakes());
        }
        let warnings = std::mem::take(&mut self.found.warnings);
        made(warnings).ok_or_else(|| {
            self.unreadable(None, "is not complete".to_owned());
            self.into_mistakes()
        })
    }

    /// Everything that was found.
    pub(super) fn into_mistakes(mut self) -> Mistakes {
        self.found.mistakes.sort_by(|a, b| a.place.cmp(&b.place));
        self.found
    }

    fn add(&mut self, at: &OptionPath, part: Part, message: String) {
        // Finding a place takes reading the text once more, so it must not be done for each of a hundred thousand.
        if self.found.mistakes.len() >= MOST_FINDINGS {
            self.found.more += 1;
            return;
        }
        let path = self.original(at);
        self.mistake_at(self.place_of(&path, part), &path, message);
    }

    /// The path in the tree as it was given, of a path in the tree without what was dropped.
    fn original(&self, path: &OptionPath) -> OptionPath {
        let mut original = OptionPath::default();
        for step in &path.0 {
            let step = match step {
                Step::Key(name) => Step::Key(name.clone()),
                Step::Index(index) => Step::Index(self.original_index(&original, *index)),
            };
            original.0.push(step);
        }
        original
    }

    fn original_index(&self, list: &OptionPath, mut index: usize) -> usize {
        for dropped in &self.dropped {
            match dropped.split_last() {
                Some((above, Step::Index(gone))) if above == *list && *gone <= index => index += 1,
                Some(_) | None => {}
            }
        }
        index
    }

    /// Where a part was given; for what is missing, the nearest thing around it.
    fn place_of(&self, path: &OptionPath, part: Part) -> Place {
        if let Some((_, place)) = self.overrides.iter().rev().find(|(above, _)| path.is_within(above)) {
            return place.clone();
        }
        let position = document::position(&self.text, path, part).or_else(|| self.position_around(path));
        Place::File { file: self.file.clone(), position }
    }

    fn position_around(&self, path: &OptionPath) -> Option<Position> {
        let (above, _) = path.split_last()?;
        let part = match above.0.last()? {
            Step::Key(_) => Part::Name(0),
            Step::Index(_) => Part::Value,
        };
        document::position(&self.text, &above, part).or_else(|| self.position_around(&above))
    }
}
