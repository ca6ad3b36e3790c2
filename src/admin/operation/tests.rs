//! What the table of operations must hold to.

use super::*;

#[test]
fn a_path_and_a_method_come_to_one_operation() {
    for (method, path, expected) in [
        (Method::GET, "/v2/keys", "listKeys:"),
        (Method::HEAD, "/v2/keys", "listKeys:"),
        (Method::POST, "/v2/keys", "createKey:"),
        (Method::GET, "/v2/keys/k1", "getKey:k1"),
        (Method::POST, "/v2/keys/identify", "identifyKey:"),
        (Method::GET, "/v2/keys/identify", "POST"),
        (Method::GET, "/v2/scopes/organization:acme%2Fproject:p1", "getScope:organization:acme/project:p1"),
        (Method::PUT, "/v2/keys", "GET, HEAD, POST"),
        (Method::OPTIONS, "/v2/keys/k1", "DELETE, GET, HEAD, PATCH"),
        (Method::GET, "/v2/keys/", ""),
        (Method::GET, "/v2/keys/a/b", ""),
        (Method::GET, "/v2", ""),
        (Method::GET, "/v2/keys/%ff", ""),
    ] {
        let found = match find(&method, path) {
            Found::Operation(operation, id) => format!("{}:{id}", operation.id),
            Found::OtherMethods(methods) => methods,
            Found::Nothing => String::new(),
        };
        assert_eq!(found, expected, "{method} {path}");
    }
}

#[test]
fn every_operation_is_there_once() {
    for (at, operation) in OPERATIONS.iter().enumerate() {
        let others = &OPERATIONS[at + 1..];
        let same = |other: &&Operation| {
            other.id == operation.id
                || other.action == operation.action
                || (other.method, other.path) == (operation.method, operation.path)
        };
        assert!(!others.iter().any(|other| same(&other)), "{}", operation.id);
    }
}

/// What looks needs a permission to look, and what changes something one to change it (C17).
#[test]
fn observers_reach_nothing_that_changes_anything() {
    for operation in OPERATIONS.iter().filter(|operation| operation.permission != Permission::Own) {
        let looks = operation.permission.label().ends_with(":read");
        assert_eq!(looks, *operation.method == Method::GET || operation.action == Action::IdentifyKey);
    }
}
