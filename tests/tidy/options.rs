//! The options of the configuration, as its JSON Schema knows them and as the example file writes them.
//!
//! Both give paths such as `proxy.listen` and `routes[].path`.

use std::collections::BTreeSet;

use serde_json::Value;

/// What a schema allows.
#[derive(Default, Debug)]
pub(crate) struct Options {
    /// Options with a value of their own.
    pub(crate) leaves: BTreeSet<String>,
    /// Options that hold others.
    pub(crate) sections: BTreeSet<String>,
    /// Sections whose names are the user's to choose.
    pub(crate) maps: BTreeSet<String>,
}

impl Options {
    pub(crate) fn of(schema: &Value) -> Self {
        let mut options = Self::default();
        options.visit(schema, schema, "");
        options
    }

    pub(crate) fn allow(&self, path: &str) -> bool {
        let path = path.trim_end_matches("[]");
        let in_map = |map: &String| path.strip_prefix(map.as_str()).is_some_and(|rest| rest.starts_with(['.', '[']));
        self.leaves.contains(path) || self.sections.contains(path) || self.maps.iter().any(in_map)
    }

    /// Takes in all that lies below `path`, and tells whether there was anything.
    fn visit(&mut self, root: &Value, schema: &Value, path: &str) -> bool {
        let mut any = false;
        if path.matches('.').count() > 12 {
            return any; // a schema that contains itself
        }
        for plain in alternatives(root, schema, &mut Vec::new()) {
            for (name, child) in plain["properties"].as_object().into_iter().flatten() {
                any = true;
                let below = join(path, name);
                let section = self.visit(root, child, &below);
                (if section { &mut self.sections } else { &mut self.leaves }).insert(below);
            }
            if plain["items"].is_object() {
                any |= self.visit(root, &plain["items"], &format!("{path}[]"));
            }
            if !path.is_empty() && (plain["additionalProperties"].is_object() || plain["additionalProperties"] == true)
            {
                self.maps.insert(path.to_owned());
            }
        }
        any
    }
}

/// A schema as the list of plain schemas it stands for: references followed, `anyOf` and its like opened.
fn alternatives<'a>(root: &'a Value, schema: &'a Value, seen: &mut Vec<&'a str>) -> Vec<&'a Value> {
    let mut found = vec![schema];
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/"))
        && !seen.contains(&name)
    {
        seen.push(name);
        found.extend(alternatives(root, &root["$defs"][name], seen));
    }
    for word in ["anyOf", "oneOf", "allOf"] {
        for variant in schema[word].as_array().into_iter().flatten() {
            found.extend(alternatives(root, variant, seen));
        }
    }
    found
}

/// Every option that a YAML file writes, in block or flow style. A comment counts where it holds an option in place of
/// a line (`# name: value`), and where it shows another form of a value behind it (`# or { name: value }`).
pub(crate) fn written(yaml: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    let mut open: Vec<(usize, String)> = Vec::new(); // indentation and path of what the next line may belong to
    let mut text_below = None; // indentation of an option whose value is a block of text
    for line in yaml.lines() {
        let Some((indent, content)) = option_line(line) else { continue };
        if text_below.is_some_and(|below| indent > below) {
            continue;
        }
        text_below = None;
        let (mut indent, mut content) = (indent, content);
        while let Some(item) = content.strip_prefix("- ") {
            open.retain(|(at, path)| *at < indent || (*at == indent && !path.ends_with("[]")));
            let list = open.last().map_or("", |(_, path)| path);
            open.push((indent, format!("{list}[]")));
            (indent, content) = (indent + 2, item.trim_start());
        }
        open.retain(|(at, _)| *at < indent);
        let parent = open.last().map_or("", |(_, path)| path).to_owned();
        let Some((name, value)) = name_and_value(content) else {
            flow(content, 0, &parent, &mut paths);
            continue;
        };
        let path = join(&parent, name);
        let (value, comment) = split_comment(value);
        flow(value, 0, &path, &mut paths);
        for (start, _) in comment.match_indices('{') {
            flow(comment, start, &path, &mut paths);
        }
        if value.starts_with(['|', '>']) {
            text_below = Some(indent);
        }
        open.push((indent, path.clone()));
        paths.insert(path);
    }
    paths
}

/// Indentation and content of a line that holds an option; for `# name:`, what it would be without the comment mark.
fn option_line(line: &str) -> Option<(usize, &str)> {
    let content = line.trim_start();
    let indent = line.len() - content.len();
    let Some(comment) = content.strip_prefix('#') else { return (!content.is_empty()).then_some((indent, content)) };
    let content = comment.trim_start();
    let indent = indent + (comment.len() - content.len()).saturating_sub(1);
    let bare = content.trim_start_matches("- ");
    let option = name_and_value(bare).is_some() || (content.starts_with("- {") && content.contains(": "));
    option.then_some((indent, content))
}

fn name_and_value(content: &str) -> Option<(&str, &str)> {
    let (name, value) = content.split_once(':')?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    (is_name && (value.is_empty() || value.starts_with(' '))).then(|| (name, value.trim()))
}

fn split_comment(value: &str) -> (&str, &str) {
    let mut quote = None;
    for (at, c) in value.char_indices() {
        match c {
            '"' | '\'' if quote.is_none() => quote = Some(c),
            _ if quote == Some(c) => quote = None,
            '#' if quote.is_none() && (at == 0 || value[..at].ends_with(' ')) => return (&value[..at], &value[at..]),
            _ => {}
        }
    }
    (value, "")
}

/// Reads the flow-style value at `at`, such as `{ a: 1, b: [{ c: 2 }] }`, and gives the position after it.
fn flow(text: &str, at: usize, path: &str, paths: &mut BTreeSet<String>) -> usize {
    let at = at + text[at..].len() - text[at..].trim_start().len();
    let open = text[at..].chars().next();
    let Some(open @ ('{' | '[')) = open else { return scalar_end(text, at) };
    let mut next = at + 1;
    while let Some(c) = text[next..].chars().next() {
        match c {
            '}' | ']' => return next + 1,
            ' ' | ',' => next += 1,
            _ if open == '[' => next = flow(text, next, &format!("{path}[]"), paths),
            _ => {
                let end = next + text[next..].find([':', ',', '}']).unwrap_or(text.len() - next);
                let below = join(path, text[next..end].trim());
                next = if text[end..].starts_with(':') { flow(text, end + 1, &below, paths) } else { end };
                paths.insert(below);
            }
        }
    }
    next
}

fn scalar_end(text: &str, at: usize) -> usize {
    let quote = text[at..].chars().next().filter(|c| matches!(c, '"' | '\''));
    match quote {
        Some(quote) => text[at + 1..].find(quote).map_or(text.len(), |end| at + end + 2),
        None => text[at..].find([',', '}', ']']).map_or(text.len(), |end| at + end),
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[test]
fn a_schema_gives_its_options() {
    let schema = serde_json::json!({
        "properties": {
            "version": { "type": "integer" },
            "store": { "$ref": "#/$defs/Store" },
            "deny": { "anyOf": [{ "$ref": "#/$defs/Deny" }, { "type": "null" }] },
            "routes": { "type": "array", "items": { "$ref": "#/$defs/Route" } },
            "proxies": { "type": "array", "items": { "type": "string" } },
            "tree": { "$ref": "#/$defs/Tree" },
        },
        "$defs": {
            "Store": { "type": "string" },
            "Deny": { "oneOf": [{ "enum": ["xml"] }, { "properties": { "format": {}, "status": {} } }] },
            "Route": { "properties": { "path": {}, "inject": { "additionalProperties": { "type": "string" } } } },
            "Tree": { "anyOf": [{ "$ref": "#/$defs/Tree" }, { "properties": { "tree": { "$ref": "#/$defs/Tree" } } }] },
        },
    });
    let options = Options::of(&schema);
    let leaves: Vec<&str> = options.leaves.iter().map(String::as_str).filter(|path| !path.contains("tree")).collect();
    assert_eq!(
        leaves,
        ["deny.format", "deny.status", "proxies", "routes[].inject", "routes[].path", "store", "version"]
    );
    assert!(options.allow("routes") && options.allow("routes[]") && options.allow("routes[].inject.any"));
    assert!(!options.allow("routes[].other") && !options.allow("other") && !options.allow("store.x"));
}

#[test]
fn a_file_gives_what_it_writes() {
    #[track_caller]
    fn check(yaml: &str, expected: &[&str]) {
        assert_eq!(written(yaml).iter().map(String::as_str).collect::<Vec<_>>(), expected, "{yaml}");
    }
    check("a: 1\nb:\n  c: x:y # d: no\n  e: \"#\"\nf:\n", &["a", "b", "b.c", "b.e", "f"]);
    check("a:\n  # b: 1\n  c: 2\n# d:\n#   e: 3\nf: 1", &["a", "a.b", "a.c", "d", "d.e", "f"]);
    check("# About this file: see below.\n# Nothing here, nor there.\na: 1", &["a"]);
    check("p: { file: ./x, q: \"a, b: c\" }  # or { env: NAME }", &["p", "p.env", "p.file", "p.q"]);
    check("s: [{ name: n, length: 2 }]\nt: [a, b]", &["s", "s[].length", "s[].name", "t"]);
    check("r:\n  - { path: \"/{*x}\", deny: { format: a } }\n", &["r", "r[].deny", "r[].deny.format", "r[].path"]);
    check("r:\n- path: a\n  b: c\n- d: e\n# - f: g\nh: 1", &["h", "r", "r[].b", "r[].d", "r[].f", "r[].path"]);
    check("r:\n  # - { path: x, methods: [A, B] }", &["r", "r[].methods", "r[].path"]);
    check("body: |\n  not: this\n\n  nor: that\nend: 1", &["body", "end"]);
    check("a: {", &["a"]);
}
