//! From a method and a path to an operation of the table.

use http::Method;

use super::{OPERATIONS, Operation};

/// What a method and a path come to.
pub enum Found {
    /// An operation, and the segment that stands for its `{id}`.
    Operation(&'static Operation, String),
    /// The path is known, but not with this method; those that there are.
    OtherMethods(String),
    /// Nothing is there.
    Nothing,
}

/// Finds the operation of a request. A literal segment goes before one that stands for anything.
pub fn find(method: &Method, path: &str) -> Found {
    let mut fitting: Vec<(&Operation, String)> =
        OPERATIONS.iter().filter_map(|operation| fits(operation.path, path).map(|id| (operation, id))).collect();
    // Literal paths first: `identify` is no id.
    if fitting.iter().any(|(operation, _)| operation.path == path) {
        fitting.retain(|(operation, _)| operation.path == path);
    }
    let method = if method == Method::HEAD { &Method::GET } else { method };
    if let Some(at) = fitting.iter().position(|(operation, _)| operation.method == method) {
        let (operation, id) = fitting.swap_remove(at);
        return Found::Operation(operation, id);
    }
    let mut methods: Vec<&str> = fitting.iter().map(|(operation, _)| operation.method.as_str()).collect();
    if methods.is_empty() {
        return Found::Nothing;
    }
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.sort_unstable();
    Found::OtherMethods(methods.join(", "))
}

/// The segment that stands for `{id}`, empty where there is none, if the path fits.
fn fits(template: &str, path: &str) -> Option<String> {
    let (mut id, mut segments) = (String::new(), path.split('/'));
    for wanted in template.split('/') {
        let segment = segments.next()?;
        if wanted == "{id}" {
            let decoded = crate::auth::path::percent_decode(segment.as_bytes());
            id = String::from_utf8(decoded.into_owned()).ok().filter(|id| !id.is_empty())?;
        } else if wanted != segment {
            return None;
        }
    }
    segments.next().is_none().then_some(id)
}
