//! Which requests a route is for: what its path, hosts and methods say, and whether any request comes to it.

use http::Method;

use crate::auth::route::{BadPattern, Pattern, Routes};
use crate::auth::scope::Level;
use crate::config::place::OptionPath;
use crate::config::raw;
use crate::config::report::Report;
use crate::config::secrecy::{quoted, without};

/// What a route's path, hosts and methods say. `None` only where a mistake was reported.
pub(super) fn read(raw: &raw::Route, at: &OptionPath, report: &mut Report) -> Option<Pattern> {
    let hosts = listed(raw.hosts.as_ref(), &at.key("hosts"), report).into_iter().filter_map(|(text, here)| {
        let parsed = Pattern::parse("/", &[text.to_owned()], Vec::new()).map_err(|error| without(text, &error));
        report.take(&here, parsed).map(|_| text.to_owned())
    });
    let hosts: Vec<String> = hosts.collect();
    let methods = listed(raw.methods.as_ref(), &at.key("methods"), report);
    let methods = methods.into_iter().filter_map(|(text, here)| report.take(&here, method(text))).collect();
    let path = raw.path.as_deref()?;
    let pattern = Pattern::parse(path, &hosts, methods).map_err(|error: BadPattern| without(path, &error));
    report.take(&at.key("path"), pattern.and_then(|pattern| no_level_mistyped(path).map(|()| pattern)))
}

/// Routes that no request comes to: said only where every route could be read, since their numbers are then those of the file.
pub(super) fn report_hidden(routes: &Routes, raw: &raw::File, report: &mut Report) {
    if routes.default_index() != raw.routes.len() {
        return;
    }
    for (nth, by) in routes.hidden() {
        let at = OptionPath::of(["routes"]).index(nth).key("path");
        let earlier = OptionPath::of(["routes"]).index(by);
        report.mistake(
            &at,
            format!("is never reached, since {earlier} has all of its requests; put it before that one, or remove it"),
        );
    }
}

/// A capture that is called nearly as a level would not be checked, and nobody would notice.
fn no_level_mistyped(path: &str) -> Result<(), String> {
    let captures = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    for name in captures.map(|name| name.trim_start_matches('*')) {
        if let Some(level) = level_meant(name) {
            let level = level.label();
            return Err(format!(
                "{{{name}}} is no level of scopes, so no key would be held to its own: write {{{level}}}, or a name that is less like it"
            ));
        }
    }
    Ok(())
}

/// The level that a capture is nearly called: in other letter case, a slip or two away, shortened, or as its id.
fn level_meant(name: &str) -> Option<Level> {
    if Level::parse(name).is_some() {
        return None;
    }
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    let endings = ["ids", "id", "uuid", "name", "slug", "s"];
    let stem = endings.iter().find_map(|ending| plain.strip_suffix(ending)).unwrap_or(&plain);
    Level::ALL.into_iter().find(|level| {
        let label = level.label();
        let slips = strsim::osa_distance(stem, label).min(strsim::osa_distance(&plain, label));
        slips <= label.len() / 6 || stem.len() >= 3 && label.starts_with(stem)
    })
}

/// One value or many, each with its place. An empty list would match nothing, or everything: it is refused.
fn listed<'r>(raw: Option<&'r raw::OneOrMany>, at: &OptionPath, report: &mut Report) -> Vec<(&'r str, OptionPath)> {
    match raw {
        None => Vec::new(),
        Some(raw::OneOrMany::One(text)) => vec![(text, at.clone())],
        Some(raw::OneOrMany::Many(list)) => {
            if list.is_empty() && !report.has_mistake_within(at) {
                report.mistake(at, "is empty; leave it out to match any");
            }
            list.iter().enumerate().map(|(nth, text)| (text.as_str(), at.index(nth))).collect()
        }
    }
}

fn method(text: &str) -> Result<Method, String> {
    let upper = text.to_ascii_uppercase();
    match Method::from_bytes(text.as_bytes()) {
        Err(_) => Err(format!("{} is no method; write for example GET", quoted(text))),
        Ok(_) if upper != text => {
            Err(format!("methods are told apart by letter case, {} is none; write {upper}", quoted(text)))
        }
        Ok(method) => Ok(method),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_that_are_nearly_called_as_a_level() {
        for (name, meant) in [
            ("organization", None),
            ("scene", None),
            ("id", None),
            ("key", None),
            ("product", None),
            ("screen", None),
            ("region", None),
            ("name", None),
            ("o", None),
            ("organisation", Some("organization")),
            ("Organization", Some("organization")),
            ("organizations", Some("organization")),
            ("organization_id", Some("organization")),
            ("org", Some("organization")),
            ("orgId", Some("organization")),
            ("organizaton", Some("organization")),
            ("projcet", Some("project")),
            ("projects", Some("project")),
            ("project-id", Some("project")),
            ("scenes", Some("scene")),
            ("DOMAIN", Some("domain")),
            ("domainName", Some("domain")),
        ] {
            assert_eq!(level_meant(name).map(Level::label), meant, "{name}");
        }
    }
}
