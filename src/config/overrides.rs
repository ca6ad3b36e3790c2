//! Options from the environment and from flags, laid over the tree of the file.

use serde_json::Value as Json;
use serde_yaml::{Mapping, Value};

use super::document::{self, Document};
use super::place::{OptionPath, Place};
use super::report::Report;
use super::schema::Shapes;
use super::suggest::{belongs_under, did_you_mean, nearest};

/// What the names of our environment variables begin with.
const PREFIX: &str = "KEYWARD_";
/// Variables with that prefix that are no options.
const NO_OPTIONS: [&str; 3] = ["KEYWARD_API_KEY", "KEYWARD_CONFIG", "KEYWARD_REQUIRE_TOOLS"];

/// What is given beside the config file. A flag goes before a variable, a variable before the file.
#[derive(Clone, Default)]
pub struct Overrides {
    /// The environment: `KEYWARD_PROXY__LISTEN` sets `proxy.listen`. It is also where the pepper is looked for when it
    /// is kept in a variable, so there is no `Debug` here.
    pub env: Vec<(String, String)>,
    /// The `--set` flags, as `proxy.listen` and its value.
    pub set: Vec<(String, String)>,
}

impl Overrides {
    /// The environment of this process, as far as it is text, and these flags.
    pub fn of_process(set: Vec<(String, String)>) -> Self {
        let env =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self { env: env.collect(), set }
    }

    /// The value of an environment variable.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Lays everything over the tree. What it hands back are the variables that are no options, each with advice.
    pub(super) fn apply(&self, tree: &mut Value, shapes: &Shapes, report: &mut Report) -> Vec<(String, String)> {
        let mut layer = Layer { tree, shapes, report };
        let mut unknown = Vec::new();
        let ours = self.env.iter().filter(|(name, _)| is_ours(name));
        let mut variables: Vec<_> = ours.map(|(name, value)| (names_in(name), name, value)).collect();
        // The one that is about more comes first: it would hide the other.
        variables.sort_by_key(|(names, _, _)| (names.len(), names.clone()));
        for (names, name, value) in variables {
            match shapes.option(&names) {
                Some(option) => layer.set(&names, option, value, Place::Environment(name.clone())),
                None => unknown.push((name.clone(), advice(name, shapes))),
            }
        }
        for (path, value) in &self.set {
            let names: Vec<String> = path.split('.').map(str::to_owned).collect();
            let place = Place::Flag(path.clone());
            match shapes.option(&names) {
                Some(option) => layer.set(&names, option, value, place),
                None => {
                    let message = format!("there is no such option{}", meant(path, shapes));
                    layer.report.mistake_at(place, &OptionPath::default(), message);
                }
            }
        }
        unknown
    }
}

/// A tree, and what it takes to lay values over it.
struct Layer<'l> {
    tree: &'l mut Value,
    shapes: &'l Shapes,
    report: &'l mut Report,
}

impl Layer<'_> {
    /// Sets one option. What can only be text is taken as it is; all else is read as YAML, as it would be in the file.
    fn set(&mut self, names: &[String], option: &Json, text: &str, place: Place) {
        let path = OptionPath::of(names);
        let alternatives = self.shapes.alternatives(option);
        let only_text = alternatives.iter().all(|one| one.get("type").is_some_and(|kind| kind == "string"));
        let read = if only_text { Ok(Document::of_text(text)) } else { document::parse(text) };
        let document = match read {
            Ok(document) => document,
            Err(error) => {
                let message = format!("is no YAML: {}", error.problem);
                return self.report.mistake_at(place, &OptionPath::default(), message);
            }
        };
        for (repeated, _) in &document.repeated {
            self.report.mistake_at(place.clone(), &path.join(repeated), "is given more than once; keep one of them");
        }
        if let Some(slot) = slot(self.tree, names) {
            *slot = document.tree;
            self.report.add_override(path, place);
        }
    }
}

fn names_in(variable: &str) -> Vec<String> {
    variable[PREFIX.len()..].to_ascii_lowercase().split("__").map(str::to_owned).collect()
}

/// Whether a variable can be meant as an option. Kubernetes sets variables for each Service of the namespace, and one
/// called `keyward` or `keyward-…` makes `KEYWARD_PORT`, `KEYWARD_SERVICE_HOST`, `KEYWARD_ADMIN_PORT_8081_TCP` and
/// more.
fn is_ours(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let by_kubernetes = ["SERVICE_HOST", "SERVICE_PORT", "PORT"].iter().any(|word| {
        let found = format!("_{rest}_").contains(&format!("_{word}_"));
        found && !rest.contains("__")
    });
    !NO_OPTIONS.contains(&name) && !by_kubernetes
}

fn advice(variable: &str, shapes: &Shapes) -> String {
    let names = shapes.paths().into_iter().filter(|path| !path.contains("[]"));
    let names: Vec<String> =
        names.map(|path| format!("{PREFIX}{}", path.replace('.', "__").to_ascii_uppercase())).collect();
    match nearest(variable, names.iter().map(String::as_str)) {
        Some(near) => format!("sets no option; did you mean {near}?"),
        None => "sets no option".to_owned(),
    }
}

fn meant(path: &str, shapes: &Shapes) -> String {
    let paths: Vec<String> = shapes.paths().into_iter().filter(|path| !path.contains("[]")).collect();
    let near = did_you_mean(path, &paths.iter().map(String::as_str).collect::<Vec<_>>());
    near.or_else(|| belongs_under(path, &paths)).unwrap_or_default()
}

/// The place of an option in the tree; the maps on the way there are made. `None` where something else is in the way.
fn slot<'t>(tree: &'t mut Value, names: &[String]) -> Option<&'t mut Value> {
    names.iter().try_fold(tree, |tree, name| {
        if tree.is_null() {
            *tree = Value::Mapping(Mapping::new());
        }
        Some(tree.as_mapping_mut()?.entry(Value::String(name.clone())).or_insert(Value::Null))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_kubernetes_are_not_taken_for_options() {
        for (name, ours) in [
            ("KEYWARD_PROXY__LISTEN", true),
            ("KEYWARD_STORE", true),
            ("KEYWARD_PROXY_LISTEN", true),
            ("KEYWARD_API_KEY", false),
            ("KEYWARD_CONFIG", false),
            ("KEYWARD_REQUIRE_TOOLS", false),
            ("KEYWARD_PORT", false),
            ("KEYWARD_PORT_8080_TCP", false),
            ("KEYWARD_PORT_8080_TCP_ADDR", false),
            ("KEYWARD_SERVICE_HOST", false),
            ("KEYWARD_SERVICE_PORT", false),
            ("KEYWARD_SERVICE_PORT_HTTP", false),
            ("KEYWARD_ADMIN_SERVICE_HOST", false),
            ("KEYWARD_ADMIN_PORT_8081_TCP_PROTO", false),
            ("PATH", false),
        ] {
            assert_eq!(is_ours(name), ours, "{name}");
        }
    }
}
