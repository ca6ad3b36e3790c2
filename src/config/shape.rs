//! Holds a tree against the schema: whatever has no place there, or not the right shape, is reported and cut off, so
//! that what is left can be read on.

use serde_json::Value as Json;
use serde_yaml::{Mapping, Value};

use super::place::OptionPath;
use super::raw;
use super::report::Report;
use super::schema::{Shapes, properties};
use super::secrecy::{may_be_shown, quoted};
use super::suggest::{belongs_under, did_you_mean};

/// Cuts off what does not fit the schema, and says in the report what it was. `None` when there is nothing else.
pub(super) fn fit(tree: Value, shapes: &Shapes, report: &mut Report) -> Option<Value> {
    let mut map = match tree {
        Value::Mapping(map) => map,
        Value::Null => {
            report.unreadable(None, "is empty; without it `keyward init` writes a first config".to_owned());
            return None;
        }
        other => {
            let message =
                format!("expected options such as `version: 1`, found {}", found(&other, &OptionPath::default()));
            report.mistake(&OptionPath::default(), message);
            return None;
        }
    };
    let mut fitting = Fitting { shapes, report, dropped: Vec::new() };
    fitting.keep_map(&mut map, shapes.root(), &OptionPath::default());
    let dropped = fitting.dropped;
    report.set_dropped(dropped);
    Some(Value::Mapping(map))
}

struct Fitting<'f> {
    shapes: &'f Shapes,
    report: &'f mut Report,
    /// Elements of lists that were cut off, by the index they had.
    dropped: Vec<OptionPath>,
}

impl Fitting<'_> {
    /// Whether a value fits; of a map or list at least in part.
    fn keep(&mut self, value: &mut Value, schema: &Json, at: &OptionPath) -> bool {
        let alternatives = self.shapes.alternatives(schema);
        let fitting: Vec<&Json> = alternatives.iter().copied().filter(|one| is_of_type(value, one)).collect();
        let Some(first) = fitting.first().copied() else {
            let expected = self.expected(schema, &alternatives);
            let message = format!("expected {expected}, found {}{}", found(value, at), hint(value, &alternatives));
            self.report.mistake(at, message);
            return false;
        };
        match value {
            Value::Mapping(map) => self.keep_map(map, first, at),
            Value::Sequence(list) => self.keep_list(list, first, at),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Tagged(_) => {
                return self.keep_scalar(value, &fitting, &alternatives, at);
            }
        }
        true
    }

    fn keep_map(&mut self, map: &mut Mapping, schema: &Json, at: &OptionPath) {
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        map.retain(|name, value| {
            let Value::String(name) = name else { return false };
            let here = at.key(name);
            match properties(schema).find(|(known, _)| *known == name).map(|(_, schema)| schema).or(others) {
                Some(schema) => self.keep(value, schema, &here),
                None => {
                    self.unknown(name, schema, &here);
                    false
                }
            }
        });
        self.demand(schema, at, Some(map));
    }

    fn unknown(&mut self, name: &str, schema: &Json, at: &OptionPath) {
        let known: Vec<&str> = properties(schema).map(|(known, _)| known.as_str()).collect();
        let advice = match did_you_mean(name, &known).or_else(|| belongs_under(name, &self.shapes.paths())) {
            Some(advice) => advice,
            None if name == "<<" => "; merging is not supported, write the options out".to_owned(),
            None => format!("; there are: {}", known.join(", ")),
        };
        self.report.wrong_name(at, format!("there is no such option{advice}"));
    }

    fn keep_list(&mut self, list: &mut Vec<Value>, schema: &Json, at: &OptionPath) {
        let Some(items) = schema.get("items") else { return };
        let mut index = 0;
        list.retain_mut(|value| {
            let here = at.index(index);
            index += 1;
            let fits = self.keep(value, items, &here);
            if !fits {
                self.dropped.push(here);
            }
            fits
        });
    }

    /// Reports what a map must have and has not.
    fn demand(&mut self, schema: &Json, at: &OptionPath, map: Option<&Mapping>) {
        let required = schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
        for name in required {
            let here = at.key(name);
            // What is there but of a wrong shape was cut off before, and is no longer missing.
            let known = map.is_some_and(|map| map.contains_key(name)) || self.report.has_mistake_within(&here);
            let Some(option) = schema.get("properties").and_then(|all| all.get(name)).filter(|_| !known) else {
                continue;
            };
            let resolved = self.shapes.resolve(option);
            if resolved.get("required").is_some() {
                self.demand(resolved, &here, None);
            } else {
                self.report.mistake(&here, format!("is missing{}", self.example(name, option)));
            }
        }
    }

    fn example(&self, name: &str, option: &Json) -> String {
        let alone = self.shapes.alternatives(option).into_iter().find_map(|one| one.get("const"));
        match option.get("examples").and_then(|examples| examples.get(0)).or(alone) {
            Some(example) => format!("; write for example `{name}: {}`", in_flow_style(example)),
            None => String::new(),
        }
    }

    fn keep_scalar(&mut self, value: &Value, fitting: &[&Json], alternatives: &[&Json], at: &OptionPath) -> bool {
        let json = as_json(value);
        let allowed = |one: &&Json| one.get("const").is_none_or(|only| *only == json);
        let Some(schema) = fitting.iter().copied().find(allowed) else {
            let words = constants(alternatives);
            let near =
                value.as_str().and_then(|text| did_you_mean(text, &words.iter().map(|w| &**w).collect::<Vec<_>>()));
            let message = format!("expected {}, found {}", self.expected(&Json::Null, alternatives), found(value, at));
            self.report.mistake(at, message + &near.unwrap_or_default());
            return false;
        };
        let limit = |name: &str| schema.get(name).and_then(Json::as_f64);
        // What is not finite is no number in JSON, and fits nowhere.
        let number = if value.is_number() { Some(json.as_f64().unwrap_or(f64::NAN)) } else { None };
        if let (Some(number), Some(least), most) = (number, limit("minimum"), limit("maximum"))
            && !(number >= least && most.is_none_or(|most| number <= most))
        {
            let range = most.map_or(format!("{least} or more"), |most| format!("from {least} to {most}"));
            self.report.mistake(at, format!("expected a number {range}, found {}", found(value, at)));
            return false;
        }
        true
    }

    /// What fits here, in words.
    fn expected(&self, schema: &Json, alternatives: &[&Json]) -> String {
        if let Some(title) = self.shapes.resolve(schema).get("title").and_then(Json::as_str) {
            return title.to_owned();
        }
        let mut words: Vec<String> = constants(alternatives);
        for one in alternatives.iter().filter(|one| one.get("const").is_none()) {
            words.push(match one.get("type").and_then(Json::as_str).unwrap_or_default() {
                "boolean" => "true or false".to_owned(),
                "integer" => "a whole number".to_owned(),
                "number" => "a number".to_owned(),
                "string" => "text".to_owned(),
                "array" => "a list".to_owned(),
                _ => match &properties(one).map(|(name, _)| name.as_str()).collect::<Vec<_>>()[..] {
                    few @ ([_] | [_, _] | [_, _, _]) => format!("a map with {}", few.join(", ")),
                    _ => "a map".to_owned(),
                },
            });
        }
        match words.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            Some(_) | None => words.concat(),
        }
    }
}

/// The values that alternatives allow one by one.
fn constants(alternatives: &[&Json]) -> Vec<String> {
    let words = alternatives.iter().filter_map(|one| one.get("const"));
    words.map(|word| word.as_str().map_or(word.to_string(), str::to_owned)).collect()
}

fn is_of_type(value: &Value, schema: &Json) -> bool {
    let expected = schema.get("type").and_then(Json::as_str).unwrap_or_default();
    match value {
        Value::Bool(_) => expected == "boolean",
        Value::Number(number) => expected == "number" || expected == "integer" && number.is_u64(),
        Value::String(_) => expected == "string",
        Value::Sequence(_) => expected == "array",
        Value::Mapping(_) => expected == "object",
        Value::Null | Value::Tagged(_) => false,
    }
}

fn as_json(value: &Value) -> Json {
    serde_json::to_value(value).unwrap_or_default()
}

/// What a value is, in words. Nothing of a pepper is repeated.
fn found(value: &Value, at: &OptionPath) -> String {
    let secret = at.is_within(&OptionPath::of(["keys", "pepper"]));
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) if !secret && may_be_shown(&number.to_string()) => number.to_string(),
        Value::Number(_) => "a number".to_owned(),
        Value::String(text) if !secret && may_be_shown(text) => quoted(text),
        Value::String(_) => "text".to_owned(),
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "a map".to_owned(),
        Value::Tagged(_) => "a tag".to_owned(),
    }
}

/// What to write instead, for the usual slips.
fn hint(value: &Value, alternatives: &[&Json]) -> String {
    let takes = |name: &str| alternatives.iter().all(|one| one.get("type").is_some_and(|kind| kind == name));
    let is_time = alternatives.iter().any(|one| one.get("title").is_some_and(|title| title == raw::Time::TITLE));
    match value {
        Value::Null => "; write a value, or leave the option out".to_owned(),
        Value::String(text) if takes("boolean") => match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" => "; write true".to_owned(),
            "no" | "off" | "n" => "; write false".to_owned(),
            _ => String::new(),
        },
        Value::Number(number) if is_time => format!("; a unit is missing, as in {number}s"),
        Value::Number(_) | Value::Bool(_) if takes("string") => "; text that looks like this needs quotes".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => String::new(),
        Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => String::new(),
    }
}

/// An example as one would write it in YAML.
fn in_flow_style(example: &Json) -> String {
    match example {
        Json::String(text) if text.contains(['{', '}', '[', ']', '*', '#']) => format!("{text:?}"),
        Json::String(text) => text.clone(),
        Json::Object(map) => {
            let options: Vec<_> = map.iter().map(|(name, value)| format!("{name}: {}", in_flow_style(value))).collect();
            format!("{{ {} }}", options.join(", "))
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) => example.to_string(),
    }
}
