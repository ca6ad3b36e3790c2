//! YAML text as a tree, and where in the text its parts stand.
//!
//! The library gives positions with errors only. So the position of a part is found by reading the text once more,
//! walking down to the part, and failing there on purpose.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Mapping, Value};

use super::place::{OptionPath, Position, Step};

/// What a few aliases of aliases could blow up is refused long before it fills the memory.
const MOST_VALUES: usize = 100_000;

/// What a text holds.
pub(super) struct Document {
    /// The tree. Of an option that is given more than once it has the first.
    pub(super) tree: Value,
    /// The options that are given once more, and how often they were given before.
    pub(super) repeated: Vec<(OptionPath, usize)>,
}

impl Document {
    /// A text that is only itself.
    pub(super) fn of_text(text: &str) -> Self {
        Self { tree: Value::String(text.to_owned()), repeated: Vec::new() }
    }
}

/// Why a text cannot be read at all.
pub(super) struct NotYaml {
    /// What is wrong.
    pub(super) problem: String,
    /// Where.
    pub(super) position: Option<Position>,
}

/// Reads the one document that a text must be.
pub(super) fn parse(text: &str) -> Result<Document, NotYaml> {
    let mut state = State { room: MOST_VALUES, repeated: Vec::new(), problem: None };
    let builder = Builder { at: OptionPath::default(), state: &mut state };
    match builder.deserialize(serde_yaml::Deserializer::from_str(text)) {
        Ok(tree) => Ok(Document { tree, repeated: state.repeated }),
        Err(error) => Err(not_yaml(text, &error, state.problem)),
    }
}

fn not_yaml(text: &str, error: &serde_yaml::Error, own: Option<&'static str>) -> NotYaml {
    let position = position_of(error);
    if let Some(problem) = own {
        return NotYaml { problem: problem.to_owned(), position };
    }
    let mut problem = error.to_string();
    if let Some(Position { line, column }) = position {
        problem = problem.replacen(&format!(" at line {line} column {column}"), "", 1);
    }
    if let Some(start) = problem.find("invalid type: ") {
        problem.drain(..start);
    }
    if let Some((opened, begin)) = without_end(&problem) {
        return NotYaml { problem: opened, position: Some(begin) };
    }
    if problem.contains("more than one document") {
        let position = second_document(text);
        return NotYaml { problem: "a second document begins here; a config is one".to_owned(), position };
    }
    match problem.as_str() {
        "repetition limit exceeded" => problem = "aliases of aliases stand for too many values".to_owned(),
        "recursion limit exceeded" => problem = "this is nested too deeply".to_owned(),
        _ => problem.push_str(position.map_or("", |place| hint(text.lines().nth(place.line - 1).unwrap_or_default()))),
    }
    NotYaml { problem, position }
}

/// What was begun and never ended, and where it begins: the mistake is there, and not at the end of the file.
fn without_end(problem: &str) -> Option<(String, Position)> {
    let opened = problem.strip_prefix("found unexpected end of stream, while scanning ")?;
    let (what, place) = opened.rsplit_once(" at line ")?;
    let (line, column) = place.split_once(" column ")?;
    let position = Position { line: line.parse().ok()?, column: column.parse().ok()? };
    Some((format!("{what} begins here and has no end"), position))
}

/// What to write instead, for the usual slips in a line that is no YAML.
fn hint(line: &str) -> &'static str {
    let value = line.split_once(": ").or_else(|| line.split_once("- ")).map_or("", |(_, value)| value.trim_start());
    match value.as_bytes() {
        _ if line.trim_start_matches([' ', '-']).starts_with('\t') => "; indent with spaces, not with tabs",
        [b'[', b':', ..] => "; an IPv6 address needs quotes",
        [b'*' | b'&' | b'@' | b'`' | b'%', ..] => "; text that begins with a special character needs quotes",
        _ => "",
    }
}

fn position_of(error: &serde_yaml::Error) -> Option<Position> {
    error.location().map(|found| Position { line: found.line(), column: found.column() })
}

fn second_document(text: &str) -> Option<Position> {
    let document = serde_yaml::Deserializer::from_str(text).nth(1)?;
    let found = Cell::new(false);
    position_of(&Probe { path: &[], part: Part::Value, found: &found }.deserialize(document).err()?)
}

/// Builds the tree. The library's own does not say where an option is repeated, and takes `1:` for another name than
/// `"1":`.
struct Builder<'b> {
    at: OptionPath,
    state: &'b mut State,
}

struct State {
    room: usize,
    repeated: Vec<(OptionPath, usize)>,
    problem: Option<&'static str>,
}

impl State {
    fn fail<E: Error>(&mut self, problem: &'static str) -> E {
        self.problem = Some(problem);
        E::custom(problem)
    }
}

impl<'de> DeserializeSeed<'de> for Builder<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.state.room.checked_sub(1) {
            Some(room) => self.state.room = room,
            None => {
                return Err(self
                    .state
                    .fail("this is too large: 100,000 values are the most, with all that aliases stand for"));
            }
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Builder<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<Value, E> {
        Err(self.state.fail("no number is that large"))
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<Value, E> {
        Err(self.state.fail("no number is that large"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let element = Builder { at: self.at.index(list.len()), state: &mut *self.state };
            match access.next_element_seed(element)? {
                Some(value) => list.push(value),
                None => return Ok(Value::Sequence(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Mapping::new();
        let mut times: HashMap<String, usize> = HashMap::new();
        while let Some(name) = access.next_key_seed(Name)? {
            let at = self.at.key(&name);
            let value = access.next_value_seed(Builder { at: at.clone(), state: &mut *self.state })?;
            let before = times.entry(name.clone()).or_default();
            match *before {
                0 => drop(map.insert(Value::String(name), value)),
                _ => self.state.repeated.push((at, *before)),
            }
            *before += 1;
        }
        Ok(Value::Mapping(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        Err(self.state.fail("a tag (`!name`) has no meaning here; text that begins with `!` needs quotes"))
    }
}

/// The name of an option, whatever it looks like: `on`, `1` and `null` are names.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of an option")
    }

    fn visit_str<E>(self, name: &str) -> Result<String, E> {
        Ok(name.to_owned())
    }
}

/// What of an option is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Its value.
    Value,
    /// Its name, after it was given that many times before.
    Name(usize),
}

/// Where a part of the text begins; `None` where there is no such part.
pub(super) fn position(text: &str, path: &OptionPath, part: Part) -> Option<Position> {
    let found = Cell::new(false);
    let probe = Probe { path: &path.0, part, found: &found };
    let failed = probe.deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    position_of(&failed).filter(|_| found.get())
}

/// Walks down a path and fails at its end.
struct Probe<'p> {
    path: &'p [Step],
    part: Part,
    found: &'p Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Probe<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.found.set(self.path.is_empty());
        // At the end of the path no kind of value is expected, so that every kind is an error.
        if self.path.is_empty() { deserializer.deserialize_any(Nothing) } else { deserializer.deserialize_any(self) }
    }
}

impl<'de> Visitor<'de> for Probe<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the way to a part")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Some((Step::Index(index), rest)) = self.path.split_first() else { return Ok(()) };
        for _ in 0..*index {
            access.next_element::<IgnoredAny>()?;
        }
        access.next_element_seed(Probe { path: rest, ..self }).map(drop)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Some((Step::Key(wanted), rest)) = self.path.split_first() else { return Ok(()) };
        let mut before = 0;
        loop {
            let here = rest.is_empty() && self.part == Part::Name(before);
            let Some(name) = access.next_key_seed(ProbeName { wanted, here, found: self.found })? else {
                return Ok(());
            };
            if name == *wanted {
                before += 1;
            }
            if name == *wanted && !(rest.is_empty() && matches!(self.part, Part::Name(_))) {
                return access.next_value_seed(Probe { path: rest, ..self });
            }
            access.next_value::<IgnoredAny>()?;
        }
    }
}

/// Reads a name, and fails if it is the one that is looked for and stands `here`.
struct ProbeName<'p> {
    wanted: &'p str,
    here: bool,
    found: &'p Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for ProbeName<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for ProbeName<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of an option")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<String, E> {
        if self.here && name == self.wanted {
            self.found.set(true);
            return Err(E::custom("here"));
        }
        Ok(name.to_owned())
    }
}

/// Takes no value of any kind.
struct Nothing;

impl Visitor<'_> for Nothing {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }
}
