//! The JSON Schema of the config: the one place that says which options there are and what shape they have.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::Value as Json;

use super::raw;

/// The schema, and the way through it.
pub(super) struct Shapes(Json);

impl Shapes {
    /// The schema of a config file.
    pub(super) fn of_config() -> Self {
        let settings = SchemaSettings::draft2020_12().for_deserialize();
        let settings = settings.with_transform(RecursiveTransform(without_null));
        let settings = settings.with_transform(RecursiveTransform(with_defaults_in_words));
        Self(settings.into_generator().into_root_schema_for::<raw::File>().to_value())
    }

    /// The whole of it.
    pub(super) fn root(&self) -> &Json {
        &self.0
    }

    /// What a schema stands for, when it is a reference.
    pub(super) fn resolve<'s>(&'s self, schema: &'s Json) -> &'s Json {
        let target = schema.get("$ref").and_then(Json::as_str).and_then(|name| name.strip_prefix('#'));
        target.and_then(|pointer| self.0.pointer(pointer)).map_or(schema, |found| self.resolve(found))
    }

    /// The schemas that a value may fit, of which each says its own type.
    pub(super) fn alternatives<'s>(&'s self, schema: &'s Json) -> Vec<&'s Json> {
        let schema = self.resolve(schema);
        let listed = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Json::as_array);
        match listed {
            Some(list) => list.iter().flat_map(|one| self.alternatives(one)).collect(),
            None => vec![schema],
        }
    }

    /// The option that these names lead to, outside lists.
    pub(super) fn option(&self, names: &[String]) -> Option<&Json> {
        names.iter().try_fold(self.root(), |schema, name| self.resolve(schema).get("properties")?.get(name))
    }

    /// Every option as a dotted path, with `[]` for the elements of lists.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths(self.root(), "", &mut paths);
        paths
    }

    fn collect_paths(&self, schema: &Json, at: &str, paths: &mut Vec<String>) {
        for alternative in self.alternatives(schema) {
            if let Some(items) = alternative.get("items") {
                self.collect_paths(items, &format!("{at}[]"), paths);
            }
            for (name, property) in properties(alternative) {
                let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                self.collect_paths(property, &path, paths);
                paths.push(path);
            }
        }
    }
}

/// The options of a map, by name.
pub(super) fn properties(schema: &Json) -> impl Iterator<Item = (&String, &Json)> {
    schema.get("properties").and_then(Json::as_object).into_iter().flatten()
}

/// An option is there or it is not; `null` is neither. What a map has by default is said by its options.
fn without_null(schema: &mut Schema) {
    if schema.get("default").is_some_and(|default| default.is_null() || default.is_object()) {
        schema.remove("default");
    }
    if let Some(Json::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = &types[..] {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    let Some(Json::Array(alternatives)) = schema.get_mut("anyOf") else { return };
    alternatives.retain(|one| one.get("type").is_none_or(|name| name != "null"));
    if let [Json::Object(only)] = &alternatives[..] {
        let only = only.clone();
        schema.remove("anyOf");
        for (keyword, value) in only {
            if schema.get(&keyword).is_none() {
                schema.insert(keyword, value);
            }
        }
    }
}

/// Says each default in the description too: not every editor shows it otherwise.
fn with_defaults_in_words(schema: &mut Schema) {
    if let Some(Json::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
    let Some(Json::Object(properties)) = schema.get_mut("properties") else { return };
    for property in properties.values_mut() {
        let Some(default) = property.get("default") else { continue };
        let default = default.as_str().map_or(default.to_string(), str::to_owned);
        if let Some(Json::String(description)) = property.get_mut("description") {
            description.push_str(&format!(" Default: `{default}`."));
        }
    }
}
