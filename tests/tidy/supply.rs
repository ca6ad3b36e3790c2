//! What the project is built from: direct dependencies and their reasons, and the sources, names and licences of
//! everything in the lock file. `deny.toml` has the rules, here they are applied without a network or a tool.

use serde_json::Value;

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Dependencies of a `Cargo.toml` that have no comment on their line or the one before.
pub(crate) fn without_reason(manifest: &str) -> Vec<String> {
    let mut bare = Vec::new();
    let (mut in_list, mut in_value, mut explained) = (false, 0, false);
    for line in manifest.lines().map(str::trim) {
        let (code, comment) = line.split_once('#').unwrap_or((line, ""));
        if in_value == 0 && line.starts_with('[') {
            let section = line.trim_matches(['[', ']']);
            in_list = section.ends_with("dependencies");
            let name = section.split_once("dependencies.").map(|(_, name)| name);
            bare.extend(name.filter(|_| !explained && comment.is_empty()).map(str::to_owned));
        } else if in_list && in_value == 0 && code.contains('=') && comment.is_empty() && !explained {
            bare.extend(code.split(['=', '.']).next().map(|name| name.trim().to_owned()));
        }
        let count = |marks: [char; 2]| code.matches(marks).count();
        in_value = (in_value + count(['[', '{'])).saturating_sub(count([']', '}']));
        explained = line.starts_with('#');
    }
    bare
}

/// Packages of a `Cargo.lock` that come from anywhere but crates.io, or bear a banned name.
pub(crate) fn unwanted(lock: &str, banned: &[String]) -> Vec<String> {
    let mut offences = Vec::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
            line.unwrap_or_default().trim_matches('"')
        };
        let (name, source) = (field("name"), field("source"));
        if !source.is_empty() && source != REGISTRY {
            offences.push(format!("{name} comes from {source}"));
        }
        if banned.iter().any(|banned| banned == name) {
            offences.push(format!("{name} is banned by deny.toml"));
        }
    }
    offences
}

/// Packages of `cargo metadata` whose licence the list does not allow.
pub(crate) fn unlicensed(metadata: &Value, allowed: &[String]) -> Vec<String> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    packages
        .filter_map(|package| {
            let licence = package["license"].as_str().unwrap_or("no licence");
            let offence = || format!("{} {}: {licence}", package["name"], package["version"]);
            (!licence_allowed(licence, allowed)).then(offence)
        })
        .collect()
}

/// Judges an SPDX expression, with `/` as the old form of `OR`.
fn licence_allowed(expression: &str, allowed: &[String]) -> bool {
    let text = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut at = 0;
    any_of(&words, &mut at, allowed) && at == words.len()
}

fn any_of(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut permitted = all_of(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        permitted |= all_of(words, at, allowed);
    }
    permitted
}

fn all_of(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut permitted = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        permitted &= one(words, at, allowed);
    }
    permitted
}

fn one(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let permitted = any_of(words, at, allowed);
        *at += 1;
        return permitted && words.get(*at - 1) == Some(&")");
    }
    let mut name = (*word).to_owned();
    if words.get(*at) == Some(&"WITH") {
        name = format!("{name} WITH {}", words.get(*at + 1).unwrap_or(&""));
        *at += 2;
    }
    allowed.contains(&name)
}

/// The strings of a list in a TOML file, `key = ["a", "b"]` in the section `[section]`, over as many lines as it takes.
pub(crate) fn list(toml: &str, section: &str, key: &str) -> Vec<String> {
    let lines = toml.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let inside =
        lines.skip_while(|line| *line != format!("[{section}]")).skip(1).take_while(|line| !line.starts_with('['));
    let text: String = inside.skip_while(|line| line.split('=').next().map(str::trim) != Some(key)).collect();
    let values = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("", |(values, _)| values);
    values.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn a_dependency_needs_its_reason() {
    let manifest = r#"
[package]
name = "x"
[dependencies]
# why a
a = "1"
b = { version = "1", features = ["x"] } # why b
c = "1"
# why d
d = { version = "1", features = [
    "y",
] }
e.version = "1"
[target.'cfg(unix)'.dependencies]
f = "1"
[dev-dependencies.g]
version = "1"
# why h
[dependencies.h]
version = "1"
[lints.rust]
unsafe_code = "forbid"
"#;
    assert_eq!(without_reason(manifest), ["c", "e", "f", "g"]);
}

#[test]
fn packages_come_from_where_they_should() {
    let lock = "version = 4\n[[package]]\nname = \"own\"\n\n[[package]]\nname = \"good\"\nsource = \
                \"registry+https://github.com/rust-lang/crates.io-index\"\n\n[[package]]\nname = \"forked\"\nsource = \
                \"git+https://example.org/x#1\"\n\n[[package]]\nname = \"bad\"\n";
    let offences = unwanted(lock, &["bad".to_owned()]);
    assert_eq!(offences, ["forked comes from git+https://example.org/x#1", "bad is banned by deny.toml"]);
}

#[test]
fn licences_are_judged() {
    let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "ISC"].map(str::to_owned);
    for (licence, ok) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("no licence", false),
        ("MIT OR GPL-3.0", true),
        ("MIT/GPL-3.0", true),
        ("MIT AND GPL-3.0", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("MIT WITH LLVM-exception", false),
        ("GPL-3.0 OR MIT AND ISC", true),
        ("ISC AND (GPL-3.0 OR MIT)", true),
        ("(ISC AND GPL-3.0) OR (MIT AND GPL-3.0)", false),
        ("(MIT", false),
        ("MIT ISC", false),
        ("", false),
    ] {
        assert_eq!(licence_allowed(licence, &allowed), ok, "{licence}");
    }
    let metadata = serde_json::json!({ "packages": [
        { "name": "a", "version": "1.0.0", "license": "MIT" },
        { "name": "b", "version": "2.0.0", "license": null },
    ] });
    assert_eq!(unlicensed(&metadata, &allowed), ["\"b\" \"2.0.0\": no licence"]);
}

#[test]
fn lists_are_read() {
    let toml = "[bans]\ndeny = [\n  \"a\", # why\n  \"b\",\n]\nother = [\"x\"]\n[licenses]\nallow = [\"c\"]\n";
    assert_eq!(list(toml, "bans", "deny"), ["a", "b"]);
    assert_eq!(list(toml, "licenses", "allow"), ["c"]);
    assert!(list(toml, "licenses", "deny").is_empty());
}
