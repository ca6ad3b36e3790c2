//! The example file names every option, says the defaults, and can be used as it is.

use serde_yaml::Value;

use super::*;
use crate::config::schema::Shapes;

const EXAMPLE: &str = include_str!("../../../config.example.yaml");

fn load_example(text: &str) -> Config {
    let folder = folder_with(text);
    fs::rename(folder.path().join("pepper"), folder.path().join("keyward.pepper")).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
    fs::write(folder.path().join("collector.token"), "Bearer token\n").unwrap();
    for name in ["tls", "clients", "upstream-ca", "collector-ca", "keyward"] {
        fs::write(folder.path().join(format!("{name}.crt")), &certificate).unwrap();
        fs::write(folder.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    load(&folder.path().join("keyward.yaml"), &Overrides::default()).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// Whether a comment is an option and no prose: one word before its colon.
fn is_option(comment: &str) -> bool {
    let name = comment.split_once(": ").map(|(name, _)| name.trim_start());
    name.is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
}

/// With every line that is commented out as an option, instead of what it would repeat. Its upstream is one by `https:`.
pub(super) fn uncommented() -> String {
    let live = EXAMPLE.replace("\n  shapes: []", "\n").replace("\nroutes: []", "\n");
    let live = live.replace("upstream: http://127.0.0.1:9000 ", "upstream: https://127.0.0.1:9000 ");
    let live = live.replace("inject: {} ", "inject: { header: { X-Scope: scope } } ");
    let lines = live.lines().map(|line| match line.split_once('#') {
        // An option that is commented out: within a section, or with all that is below it.
        Some(("", option)) if !option.starts_with(' ') || option.starts_with("  ") => option.to_owned(),
        Some((indent, option)) if !indent.is_empty() && indent.trim().is_empty() && is_option(option) => {
            format!("{indent}{}", option.strip_prefix(' ').unwrap_or(option))
        }
        Some(_) | None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn it_loads_and_says_the_defaults() {
    let example = load_example(EXAMPLE);
    assert!(example.warnings.is_empty());
    let least = good("admin: {}\nops: {}\n");
    assert_eq!(example.proxy.limits, least.proxy.limits);
    assert_eq!(
        (example.admin, example.ops, example.sync, example.log),
        (least.admin, least.ops, least.sync, least.log)
    );

    let tree: Value = serde_yaml::from_str(EXAMPLE).unwrap();
    let shapes = Shapes::of_config();
    let mut compared = 0;
    for path in shapes.paths().iter().filter(|path| !path.contains("[]")) {
        let names: Vec<String> = path.split('.').map(str::to_owned).collect();
        let stated = names.iter().try_fold(&tree, |tree, name| tree.get(name));
        let default = shapes.option(&names).and_then(|option| option.get("default"));
        if let (Some(stated), Some(default)) = (stated, default) {
            assert_eq!(serde_json::to_value(stated).unwrap(), *default, "{path}");
            compared += 1;
        }
    }
    assert!(compared >= 30, "{compared}");
}

#[test]
fn it_names_every_option() {
    let lines = uncommented();
    let tree: Value = serde_yaml::from_str(&lines).unwrap();
    for path in Shapes::of_config().paths() {
        // These stand for their whole family: a route names the forms that differ, a pepper is either or.
        let one_for_all = [
            "routes[].credentials.",
            "default_route.credentials.",
            "default_route.deny.",
            "default_route.inject.",
            "keys.pepper.env",
        ];
        if !one_for_all.iter().any(|family| path.starts_with(family)) {
            assert!(names(&tree, &path), "{path}");
        }
    }
    assert!(EXAMPLE.contains("{ env: NAME }"));
}

/// Whether a tree has the option anywhere in its lists.
fn names(tree: &Value, path: &str) -> bool {
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    let (name, in_list) = name.strip_suffix("[]").map_or((name, false), |name| (name, true));
    let Some(found) = tree.get(name) else { return false };
    let found = if in_list { found.as_sequence().cloned().unwrap_or_default() } else { vec![found.clone()] };
    found.iter().any(|tree| rest.is_empty() || names(tree, rest))
}

#[test]
fn what_is_commented_out_loads_too() {
    let config = load_example(&uncommented());
    assert_eq!(config.proxy.settings.len(), 4);
    assert_eq!(config.proxy.settings[2].deny.status.map(|status| status.as_u16()), Some(404));
    let traces = config.traces.unwrap();
    assert_eq!(traces.headers.get("authorization"), Some(&b"Bearer token"[..]));
    assert_eq!(traces.endpoint.authority, "collector:4318");
    assert_eq!(config.files.iter().filter(|file| file.ends_with("collector.token")).count(), 1);
}

#[test]
fn the_schema_is_closed_and_described() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["properties"]["version"]["const"], 1);
    let listen = &schema["$defs"]["Proxy"]["properties"]["listen"];
    assert_eq!(listen["description"], "The address and port that clients connect to. Default: `0.0.0.0:8080`.");
    let definitions = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    for definition in definitions.filter(|definition| definition["type"] == "object") {
        assert_eq!(definition["additionalProperties"], false, "{definition}");
        for (name, option) in definition["properties"].as_object().unwrap() {
            assert!(option["description"].as_str().is_some_and(|text| !text.contains('\n')), "{name}");
        }
    }
    assert!(!schema.to_string().contains("null"));
}
