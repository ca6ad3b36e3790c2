//! What compilers do not check: which module may know which, that every file says what it is for, and that code,
//! documents, example and lock file tell one story. Each check gives a list of offences, and the list must be empty.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

#[path = "tidy/contract.rs"]
mod contract;
#[path = "tidy/options.rs"]
mod options;
#[path = "tidy/rust.rs"]
mod rust;
#[path = "tidy/supply.rs"]
mod supply;

/// What each module may name of the others. Every line names only what stands below it, so there are no circles.
const MAY_IMPORT: &[(&str, &str)] = &[
    ("main", "cli"),
    ("cli", "app config manage store auth telemetry tls"),
    ("app", "config proxy admin ops sync token replica store telemetry tls lifecycle control files auth"),
    ("fuzzing", "config proxy auth"),
    ("config", "proxy admin ops sync store telemetry tls auth"),
    ("proxy", "token replica telemetry tls lifecycle control linger auth"),
    ("admin", "token manage replica store telemetry lifecycle control auth"),
    ("ops", "replica telemetry lifecycle control"),
    ("sync", "replica store telemetry lifecycle auth"),
    ("token", "replica store auth"),
    ("manage", "store auth"),
    ("replica", "auth"),
    ("store", "files auth"),
    ("telemetry", "tls auth"),
    ("tls", ""),
    ("lifecycle", ""),
    ("control", "linger"),
    ("linger", ""),
    ("files", ""),
    ("auth", ""),
];

/// Marks of unfinished work. A low line stands in each word of these lists, so that they do not offend themselves.
const UNFINISHED: &[&str] = &["TO_DO", "FIX_ME", "X_XX", "unimplemented_!", "todo_!"];

/// The project speaks of itself, not of how or where it was written.
const OUTSIDE: &[&str] = &[
    "/wo_rk/",
    "/ro_ot/",
    "/tmp_/kw",
    "../sha_red",
    "sub_agent",
    "sub-_agent",
    "helper_ session",
    "agent_ session",
    "coding_ agent",
    "style_-anchors",
    "seed_ 00",
    "index_.crates.io",
    "static_.crates.io",
    "registry_.npmjs",
    "pypi_.org",
    "deb_.debian.org",
];

/// Files that are not ours to word.
const NOT_OURS: &[&str] = &["Cargo.lock", "package-lock.json"];

const LONGEST_FILE: usize = 500;
const LONGEST_ARCHITECTURE: usize = 150;

#[test]
fn modules_name_only_what_they_may() {
    expect_none("modules that know too much (the table is at the top of tests/tidy.rs)", {
        sources().iter().flat_map(|(path, text)| imports(path, text)).collect()
    });
}

fn imports(path: &str, text: &str) -> Vec<String> {
    let module: Vec<&str> = path.trim_start_matches("src/").trim_end_matches(".rs").split('/').collect();
    let top = module[0];
    if top == "lib" {
        return Vec::new(); // lists the modules and knows nothing else
    }
    let Some((_, may)) = MAY_IMPORT.iter().find(|(name, _)| *name == top) else {
        return vec![format!("{path}: the module `{top}` is not in the table")];
    };
    let inside = if top == "main" { &[][..] } else { &module };
    let named = rust::modules_named(&rust::code_only(text), inside);
    let unwanted = named.into_iter().filter(|(_, name)| name != top && !may.split(' ').any(|may| may == name));
    unwanted.map(|(line, name)| format!("{path}:{line}: `{top}` may not name `{name}`")).collect()
}

/// What the decision must not touch: the same question always has the same answer.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    ".await",
    "async ",
    "tokio::",
    "std::fs",
    "std::net::Tcp",
    "std::env",
    "std::thread",
    "tracing::",
];

#[test]
fn auth_is_pure() {
    expect_none("I/O, clocks and async in `auth`", {
        let auth = |path: &str| path == "src/auth.rs" || path.starts_with("src/auth/");
        sources().iter().filter(|(path, _)| auth(path)).flat_map(|(path, text)| in_code(path, text, IMPURE)).collect()
    });
}

#[test]
fn files_have_a_header_and_an_end() {
    expect_none("files without a head, or too long", {
        sources().iter().flat_map(|(path, text)| shape(path, text)).collect()
    });
}

fn shape(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    let offences = [
        (!text.starts_with("//!") && !text.starts_with("#![doc"), "does not begin with a `//!` header".to_owned()),
        (lines >= LONGEST_FILE, format!("has {lines} lines; stay below {LONGEST_FILE}")),
        (path.ends_with("/mod.rs"), "should be the file beside its folder: foo.rs, not foo/mod.rs".to_owned()),
    ];
    offences.into_iter().filter(|(bad, _)| *bad).map(|(_, what)| format!("{path} {what}")).collect()
}

#[test]
fn nothing_is_left_unfinished() {
    expect_none("marks of unfinished work", {
        project_files().iter().flat_map(|(path, text)| whole_words(path, text, UNFINISHED)).collect()
    });
}

#[test]
fn nothing_speaks_of_the_workshop() {
    expect_none("words about how or where the project was written", {
        project_files().iter().flat_map(|(path, text)| phrases(path, text, OUTSIDE)).collect()
    });
}

fn whole_words(path: &str, text: &str, list: &[&str]) -> Vec<String> {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    let stands_alone = |line: &str, at: usize, word: &str| {
        !line[..at].ends_with(in_word) && !line[at + word.len()..].starts_with(in_word)
    };
    offending_lines(path, text, list, |line, word| line.match_indices(word).any(|(at, _)| stands_alone(line, at, word)))
}

fn phrases(path: &str, text: &str, list: &[&str]) -> Vec<String> {
    offending_lines(path, text, list, |line, phrase| line.to_lowercase().contains(&phrase.to_lowercase()))
}

fn offending_lines(path: &str, text: &str, list: &[&str], holds: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let list: Vec<String> = list.iter().map(|word| word.replacen('_', "", 1)).collect();
    let mut offences = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let found = list.iter().filter(|word| holds(line, word));
        offences.extend(found.map(|word| format!("{path}:{}: {word}", at + 1)));
    }
    offences
}

#[test]
fn nothing_unwraps_outside_tests() {
    expect_none("unwraps; say with `expect` why it cannot fail, or return the error", {
        let sources = sources();
        let tests = test_modules(&sources);
        let is_test =
            |path: &str| tests.iter().any(|test| path == format!("{test}.rs") || path.starts_with(&format!("{test}/")));
        let code = sources.iter().filter(|(path, _)| !is_test(path));
        code.flat_map(|(path, text)| in_code(path, text, &[".unwrap()"])).collect()
    });
}

/// The modules that some file declares behind `#[cfg(test)]`, as paths without their ending.
fn test_modules(sources: &[(String, String)]) -> Vec<String> {
    let mut modules = Vec::new();
    for (path, text) in sources {
        let folder = path.trim_end_matches("/lib.rs").trim_end_matches("/main.rs").trim_end_matches(".rs");
        for rest in text.split("#[cfg(test)]").skip(1) {
            let declared = rest.trim_start().trim_start_matches("pub(crate) ").strip_prefix("mod ");
            let name = declared.and_then(|rest| rest.split_once(';')).map(|(name, _)| name);
            modules.extend(name.filter(|name| !name.contains('{')).map(|name| format!("{folder}/{name}")));
        }
    }
    modules
}

#[test]
fn a_module_for_tests_is_known_by_its_declaration() {
    let source = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let sources = [
        source("src/cli.rs", "mod a;\n#[cfg(test)]\nmod testing;\n#[cfg(test)]\nmod tests { fn f() {} }"),
        source("src/lib.rs", "#[cfg(test)]\nmod x;"),
    ];
    assert_eq!(test_modules(&sources), ["src/cli/testing", "src/x"]);
}

/// Where the code that is no test holds one of these.
fn in_code(path: &str, text: &str, list: &[&str]) -> Vec<String> {
    if path.ends_with("/tests.rs") {
        return Vec::new();
    }
    let code = rust::without_tests(&rust::code_only(text));
    let mut offences = Vec::new();
    for (at, line) in code.lines().enumerate() {
        let found = list.iter().filter(|what| line.contains(**what));
        offences.extend(found.map(|what| format!("{path}:{}: {}", at + 1, what.trim())));
    }
    offences
}

#[test]
fn metrics_are_documented() {
    let documents: String = project_files()
        .into_iter()
        .filter(|(path, _)| path == "README.md" || (path.starts_with("docs/") && path.ends_with(".md")))
        .map(|(_, text)| text)
        .collect();
    let ours = |(path, text): (String, String)| path.starts_with("src/telemetry/metrics").then_some(text);
    expect_none("metrics", metrics(&sources().into_iter().filter_map(ours).collect::<String>(), &documents));
    let exposition = keyward::telemetry::metrics::Metrics::new().and_then(|metrics| metrics.expose());
    let contract = serde_json::from_str(&read("docs/metrics.json")).expect("the contract is JSON");
    let strays = contract::unpromised(&exposition.expect("metrics can be made"), &contract);
    expect_none("metrics that docs/metrics.json does not promise; `make generate` writes it anew", strays);
}

fn metrics(code: &str, documents: &str) -> Vec<String> {
    let declared: BTreeSet<&str> = metric_names(code, "\"").filter(|(_, ended)| *ended).map(|(name, _)| name).collect();
    let mentioned: BTreeSet<&str> = metric_names(documents, "").map(|(name, _)| name).collect();
    let known = |name: &str| {
        let series = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let group = name.ends_with('_') && declared.iter().any(|metric| metric.starts_with(name)); // keyward_x_*
        declared.contains(name) || series.is_some_and(|metric| declared.contains(metric)) || group
    };
    let mut offences = Vec::new();
    if declared.is_empty() {
        offences.push("src/telemetry/metrics.rs declares none".to_owned());
    }
    offences.extend(declared.difference(&mentioned).map(|name| format!("{name} is in neither README.md nor docs/")));
    offences
        .extend(mentioned.iter().filter(|name| !known(name)).map(|name| format!("{name} is documented but not there")));
    offences
}

/// Every `keyward_…` after `before`, and whether a quotation mark ends it.
fn metric_names<'a>(text: &'a str, before: &'static str) -> impl Iterator<Item = (&'a str, bool)> {
    let in_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.match_indices("keyward_").filter_map(move |(at, _)| {
        let (head, rest) = text.split_at(at);
        let end = rest.find(|c| !in_name(c)).unwrap_or(rest.len());
        let found = end > "keyward_".len() && head.ends_with(before) && !head.ends_with(in_name);
        found.then(|| (&rest[..end], rest[end..].starts_with('"')))
    })
}

#[test]
fn the_example_names_every_option() {
    let schema = keyward(&["schema"], Path::new("."));
    let schema = serde_json::from_str(&schema).expect("`keyward schema` prints JSON");
    expect_none("options of config.example.yaml", example(&schema, &read("config.example.yaml")));
}

fn example(schema: &Value, yaml: &str) -> Vec<String> {
    let options = options::Options::of(schema);
    let written = options::written(yaml);
    // What is the same in routes as at the top, and in the default route as in routes, is told once.
    let told = |path: &str| {
        let in_route = path.strip_prefix("default_route.").map(|rest| format!("routes[].{rest}"));
        let at_top = path.strip_prefix("routes[].").or_else(|| path.strip_prefix("default_route."));
        written.contains(path)
            || in_route.is_some_and(|path| written.contains(&path))
            || at_top.is_some_and(|path| written.contains(path))
    };
    let mut offences = Vec::new();
    if options.leaves.is_empty() {
        offences.push("the schema has no options at all".to_owned());
    }
    offences.extend(options.leaves.iter().filter(|path| !told(path)).map(|path| format!("{path} is missing")));
    let unknown = written.iter().filter(|path| !options.allow(path));
    offences.extend(
        unknown.map(|path| format!("{path} is no option; if it is prose, do not let it look like `name: value`")),
    );
    offences
}

#[test]
fn the_charts_know_every_option() {
    let mut schema: Value =
        serde_json::from_str(&keyward(&["schema"], Path::new("."))).expect("`keyward schema` prints JSON");
    let mut definitions = schema["$defs"].take();
    // What the program must be told, the charts tell it.
    for part in ["Proxy", "Keys"] {
        definitions[part].as_object_mut().map(|part| part.remove("required"));
    }
    for chart in ["keyward", "keyward-lib"] {
        let path = format!("charts/{chart}/values.schema.json");
        let values: Value = serde_json::from_str(&read(&path)).expect("the schema of values is JSON");
        let mut known = values["$defs"].clone();
        let config = known.as_object_mut().and_then(|known| known.remove("config")).unwrap_or_default();
        let same = known == definitions && config["properties"] == schema["properties"];
        assert!(same, "{path} has another schema of the config than the program; `make generate` writes it anew");
    }
}

#[test]
fn the_example_is_valid() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("example");
    fs::create_dir_all(&folder).expect("the target folder can be written");
    fs::write(folder.join("config.example.yaml"), read("config.example.yaml")).expect("the folder can be written");
    fs::write(folder.join("keyward.pepper"), "5a".repeat(32)).expect("the folder can be written");
    fs::write(folder.join("records.json"), r#"{"records": []}"#).expect("the folder can be written");
    keyward(&["check", "--config", "config.example.yaml", "--set", "store=file:records.json"], &folder);
}

#[test]
fn dependencies_have_reasons() {
    let bare = supply::without_reason(&read("Cargo.toml"));
    expect_none("dependencies in Cargo.toml without a comment that says why", bare);
}

#[test]
fn dependencies_come_from_crates_io() {
    let banned = supply::list(&read("deny.toml"), "bans", "deny");
    assert!(!banned.is_empty(), "deny.toml should ban something");
    expect_none("packages in Cargo.lock", supply::unwanted(&read("Cargo.lock"), &banned));
}

#[test]
fn dependencies_have_free_licences() {
    let rustc = output(Command::new("rustc").arg("-vV"));
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc -vV names the host");
    let arguments = ["metadata", "--format-version=1", "--offline", "--locked", "--filter-platform", host];
    let metadata = output(Command::new(env!("CARGO")).args(arguments).current_dir(root()));
    let metadata = serde_json::from_str(&metadata).expect("cargo metadata prints JSON");
    let allowed = supply::list(&read("deny.toml"), "licenses", "allow");
    expect_none("licences that deny.toml does not allow", supply::unlicensed(&metadata, &allowed));
}

#[test]
fn the_architecture_stays_short() {
    let lines = read("ARCHITECTURE.md").lines().count();
    assert!(lines <= LONGEST_ARCHITECTURE, "ARCHITECTURE.md has {lines} lines; {LONGEST_ARCHITECTURE} are enough");
}

#[track_caller]
fn expect_none(what: &str, offences: Vec<String>) {
    assert!(offences.is_empty(), "{what}:\n  {}\n", offences.join("\n  "));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The text files that are part of the project, or will be with the next commit, each with its text.
fn project_files() -> Vec<(String, String)> {
    let listed = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let files = output(Command::new("git").args(listed).current_dir(root()));
    let paths: BTreeSet<&str> =
        files.split_terminator('\0').filter(|path| !NOT_OURS.iter().any(|end| path.ends_with(end))).collect();
    assert!(paths.contains("Cargo.toml"), "git knows this folder");
    paths.into_iter().filter_map(|path| Some((path.to_owned(), fs::read_to_string(root().join(path)).ok()?))).collect()
}

fn sources() -> Vec<(String, String)> {
    let files = project_files().into_iter();
    let sources: Vec<_> = files.filter(|(path, _)| path.starts_with("src/") && path.ends_with(".rs")).collect();
    assert!(!sources.is_empty(), "src/ holds no Rust");
    sources
}

/// What the built `keyward` prints, run in `folder` without settings from outside.
fn keyward(arguments: &[&str], folder: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyward"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KEYWARD_")) {
        command.env_remove(name);
    }
    output(command.args(arguments).current_dir(folder))
}

fn output(command: &mut Command) -> String {
    let result = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&result.stderr);
    assert!(result.status.success(), "{command:?} failed: {errors}");
    String::from_utf8(result.stdout).expect("programs print UTF-8")
}

#[test]
fn the_table_has_no_circles() {
    for (at, (module, may)) in MAY_IMPORT.iter().enumerate() {
        for name in may.split_whitespace() {
            let below = MAY_IMPORT[at + 1..].iter().any(|(other, _)| *other == name);
            assert!(below, "`{module}` names `{name}`, which does not stand below it");
        }
    }
}

#[test]
fn imports_are_judged() {
    for (path, text, expected) in [
        (
            "src/proxy.rs",
            "use crate::auth::Permit;\nuse crate::store::Store;",
            &["src/proxy.rs:2: `proxy` may not name `store`"][..],
        ),
        (
            "src/proxy/reply.rs",
            "use super::forward;\nuse super::super::config;",
            &["src/proxy/reply.rs:2: `proxy` may not name `config`"],
        ),
        ("src/proxy/reply.rs", "use crate::proxy::forward; // crate::store", &[]),
        (
            "src/auth.rs",
            "mod tests { use super::*; use crate::replica; }",
            &["src/auth.rs:1: `auth` may not name `replica`"],
        ),
        ("src/app.rs", "use crate::{config, proxy, cli};", &["src/app.rs:1: `app` may not name `cli`"]),
        (
            "src/main.rs",
            "fn main() { keyward::cli::run(); keyward::app::run() }",
            &["src/main.rs:1: `main` may not name `app`"],
        ),
        ("src/tls.rs", "use crate::*;", &["src/tls.rs:1: `tls` may not name `*`"]),
        ("src/odd.rs", "", &["src/odd.rs: the module `odd` is not in the table"]),
        ("src/lib.rs", "pub use crate::auth::Key;", &[]),
    ] {
        assert_eq!(imports(path, text), expected, "{path} {text}");
    }
}

#[test]
fn shapes_are_judged() {
    assert!(shape("src/a.rs", "//! A.\n").is_empty());
    assert!(shape("src/a.rs", &format!("//! A.\n{}", "x\n".repeat(498))).is_empty());
    assert_eq!(shape("src/a.rs", &format!("//! A.\n{}", "x\n".repeat(499))).len(), 1);
    assert_eq!(shape("src/a/mod.rs", "use x;\n//! A.\n").len(), 2);
}

#[test]
fn words_are_found() {
    let text = "a toDO b\nTO-DO\nFIX".to_owned() + "ME: c\nXX" + "XX\n to" + "do!()";
    assert_eq!(whole_words("f", &text, UNFINISHED), ["f:3: FIX\u{4d}E", "f:5: to\u{64}o!"]);
    let text = "see /wo".to_owned() + "rk/x\nand a Sub" + "agent";
    assert_eq!(phrases("f", &text, OUTSIDE).len(), 2);
    assert!(phrases("f", "work, root, and the session of a user", OUTSIDE).is_empty());
}

#[test]
fn unwraps_are_found() {
    let text = "f(a.unwrap());\n// b.unwrap()\n\"c.unwrap()\";\nd.unwrap_or(1);\n#[cfg(test)]\nmod tests { fn t() { e.unwrap() } }\n";
    assert_eq!(in_code("src/a.rs", text, &[".unwrap()"]), ["src/a.rs:1: .unwrap()"]);
    assert!(in_code("src/a/tests.rs", text, &[".unwrap()"]).is_empty());
    assert_eq!(in_code("src/a.rs", "\nlet now = Instant::now();", IMPURE), ["src/a.rs:2: Instant::now"]);
}

#[test]
fn metrics_are_compared() {
    let code = r#"a("keyward_a_total"); b("keyward_b_seconds"); c("keyward_" + x); d("my_keyward_d")"#;
    assert!(
        metrics(code, "`keyward_a_total`, `keyward_b_seconds_bucket`, keyward_b_seconds and keyward_b_*").is_empty()
    );
    let offences = metrics(code, "keyward_a_total, keyward_c_total");
    assert_eq!(
        offences,
        ["keyward_b_seconds is in neither README.md nor docs/", "keyward_c_total is documented but not there"]
    );
    assert_eq!(metrics("", "").len(), 1);
}

#[test]
fn examples_are_compared() {
    let schema = serde_json::json!({ "properties": { "a": {}, "b": { "properties": { "c": {}, "d": {} } } } });
    assert!(example(&schema, "a: 1\nb:\n  c: 2\n  # d: 3\n").is_empty());
    assert_eq!(example(&schema, "a: 1\nb:\n  c: 2\n  e: 3\n")[0], "b.d is missing");
    assert_eq!(example(&schema, "a: 1\nb: { c: 2, d: 3 }\nc: 4").len(), 1);
    assert_eq!(example(&serde_json::json!({}), "").len(), 1);
}
