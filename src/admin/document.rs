//! The OpenAPI document, made from the table of operations: what is not in the table is not in the document, and nothing is in
//! the document that the table does not have.

use http::Method;
use serde_json::{Map, Value, json};

use super::import::MEDIA_TYPES;
use super::operation::{Action, OPERATIONS, Operation};
use crate::auth::authority::Permission;

/// Where the document is.
pub const PATH: &str = "/v2/openapi.json";

const SCHEMAS: &str = include_str!("schemas.json");

/// The document, for clients that call this server by that URL.
pub fn document(url: Option<&str>) -> String {
    let mut paths: Map<String, Value> = Map::new();
    for operation in &OPERATIONS {
        let item = paths.entry(operation.path).or_insert_with(|| path_item(operation.path));
        item[operation.method.as_str().to_ascii_lowercase()] = described(operation);
    }
    let schemas: Value = serde_json::from_str(SCHEMAS).unwrap_or_default();
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Keyward management API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Keys, their values and the scopes they act in. Every answer has the four parts success, result, links and errors.",
            "contact": { "name": "Whoever runs this server", "url": url.unwrap_or("http://localhost:8081") },
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": url.unwrap_or("/") }],
        "tags": TAGS.map(|(name, description)| json!({ "name": name, "description": description })),
        "security": [{ "bearer": [] }, { "cookie": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "description": "An API key that has a role." },
                "cookie": {
                    "type": "apiKey", "in": "cookie", "name": if url.is_some_and(|url| url.starts_with("https:")) { "__Host-keyward" } else { "keyward" },
                    "description": "Somebody who has signed in. What changes anything needs Sec-Fetch-Site, Origin or X-Keyward-Request.",
                },
            },
            "schemas": schemas,
            "responses": { "Failure": failure() },
        },
    });
    document.to_string()
}

const TAGS: [(&str, &str); 11] = [
    ("keys", "What customers present, and who made it."),
    ("scopes", "The tree that keys act in."),
    ("users", "People, whose keys work while they may use the API."),
    ("roles", "What permissions come together."),
    ("bindings", "Who has which role, and where."),
    ("leaks", "Keys that were found where they do not belong."),
    ("session", "Signing in and out."),
    ("me", "The own account."),
    ("usage", "How often keys are used."),
    ("audit", "Who changed what."),
    ("nodes", "The processes that follow the store."),
];

fn path_item(path: &str) -> Value {
    if !path.contains("{id}") {
        return json!({});
    }
    let schema = json!({ "type": "string", "minLength": 1 });
    json!({ "parameters": [{ "name": "id", "in": "path", "required": true, "description": "Its id.", "schema": schema }] })
}

fn described(operation: &Operation) -> Value {
    let tag = operation.path.split('/').nth(2).unwrap_or_default();
    let permission = operation.permission.label();
    let description = if operation.permission == Permission::Own {
        format!("{}. Everybody may.", operation.summary)
    } else {
        format!("{}. The caller needs a role with {permission}.", operation.summary)
    };
    let mut described = json!({
        "operationId": operation.id,
        "tags": [tag],
        "summary": operation.summary,
        "description": description,
        "x-permission": permission,
        "parameters": parameters(operation),
        "responses": responses(operation),
    });
    if operation.action == Action::SignIn {
        described["security"] = json!([]);
    }
    if let Some(input) = operation.input {
        let content = if operation.action == Action::ImportKeys {
            MEDIA_TYPES.map(|(media_type, _)| media(media_type, input)).into_iter().collect()
        } else {
            Map::from_iter([media("application/json", input)])
        };
        // A rotation without anything said lets the values before go on.
        described["requestBody"] = json!({ "required": input != "Rotation", "content": content });
    }
    described
}

/// What is sent along as a media type.
fn media(media_type: &str, schema: &str) -> (String, Value) {
    (media_type.to_owned(), json!({ "schema": { "$ref": format!("#/components/schemas/{schema}") } }))
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let query = operation.query.iter().map(|name| {
        let (description, schema) = match *name {
            "limit" => {
                ("How many at most.", json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 25 }))
            }
            "cursor" if operation.path == "/v2/audit" => (
                "Where to go on; from links.next.",
                json!({ "type": "string", "default": "", "pattern": "^[0-9]{0,18}$" }),
            ),
            "wait" => ("Whether to wait until it holds everywhere.", json!({ "enum": ["all"] })),
            "timeout" => ("How long to wait.", json!({ "type": "string", "default": "2s", "pattern": "^[1-9]s$" })),
            "order" => ("From which end.", json!({ "enum": ["newest", "oldest"], "default": "newest" })),
            "chain" => (
                "Whether each entry comes with what its hash chain is made of.",
                json!({ "type": "boolean", "default": false }),
            ),
            "line" => (
                "On which line of a file the first row is, where this is a part of it.",
                json!({ "type": "integer", "minimum": 1, "maximum": 4_294_967_295_u32 }),
            ),
            "actor" => ("Only what this one did.", json!({ "type": "string" })),
            "action" => ("Only this action, or all of a group, such as key.", json!({ "type": "string" })),
            "target" => ("Only what was done to this.", json!({ "type": "string" })),
            "since" => ("Only from then on.", json!({ "type": "string", "format": "date-time" })),
            "until" => ("Only before then.", json!({ "type": "string", "format": "date-time" })),
            "cursor" => ("Where to go on; from links.next.", json!({ "type": "string", "default": "" })),
            "state" => ("Which keys.", json!({ "enum": ["live", "revoked", "all"], "default": "live" })),
            "name" => ("Only keys with this in their names, in capitals or not.", json!({ "type": "string" })),
            "scope" => {
                let pattern = "^organization:[a-z0-9]{1,20}$";
                ("Only keys of this scope and of those below.", json!({ "type": "string", "pattern": pattern }))
            }
            "subject" => ("Whose: user:ID or key:ID.", json!({ "type": "string" })),
            "cascade" => ("Whether the keys below it go too.", json!({ "type": "boolean", "default": false })),
            "list" => ("Whether what went is listed.", json!({ "type": "boolean", "default": false })),
            "record" => (
                "Whether records are wanted as they are stored, each with its revision.",
                json!({ "type": "boolean", "default": false }),
            ),
            "force" => ("Whether to shut out oneself if need be.", json!({ "type": "boolean", "default": false })),
            "reason" => ("Why, for the audit.", json!({ "type": "string", "minLength": 1, "maxLength": 200 })),
            // A test sees that there is none without a description.
            _ => ("", json!({})),
        };
        json!({ "name": name, "in": "query", "description": description, "schema": schema })
    });
    let header = |name: &str, description: &str| json!({ "name": name, "in": "header", "description": description, "schema": { "type": "string" } });
    let header = match *operation.method {
        Method::POST if operation.creates => {
            Some(header("Idempotency-Key", "The same request with the same key is carried out once."))
        }
        Method::PATCH | Method::DELETE => Some(header("If-Match", "The ETag that the caller has seen.")),
        _ => None,
    };
    query.chain(header).collect()
}

fn responses(operation: &Operation) -> Value {
    let is_list = operation.output.ends_with("List");
    let links = if is_list {
        json!({ "type": "object", "additionalProperties": false, "properties": { "next": { "type": "string", "format": "uri" } } })
    } else {
        json!({ "type": "null" })
    };
    let result = json!({ "$ref": format!("#/components/schemas/{}", operation.output) });
    let result = if operation.query.contains(&"record") { or_record(result, is_list) } else { result };
    let schema = json!({
        "type": "object",
        "required": ["success", "result", "links", "errors"],
        "additionalProperties": false,
        "properties": {
            "success": { "const": true },
            "result": result,
            "links": links,
            "errors": { "type": "array", "maxItems": 0, "items": { "$ref": "#/components/schemas/Error" } },
        },
    });
    let done = json!({ "description": "Done.", "content": { "application/json": { "schema": schema } } });
    let mut responses = Map::from_iter([("200".to_owned(), done.clone())]);
    if operation.query.contains(&"wait") {
        responses.insert("202".to_owned(), done);
    }
    for status in statuses(operation) {
        responses.insert(status.to_string(), json!({ "$ref": "#/components/responses/Failure" }));
    }
    Value::Object(responses)
}

/// A result, or what is stored of it.
fn or_record(result: Value, is_list: bool) -> Value {
    let record = json!({ "$ref": "#/components/schemas/Record" });
    let records = if is_list { json!({ "type": "array", "items": record }) } else { record };
    json!({ "anyOf": [result, records] })
}

/// What else may come of it.
fn statuses(operation: &Operation) -> Vec<u16> {
    let mut statuses = vec![400, 401, 403, 404, 405, 413, 429, 500, 503];
    if matches!(operation.permission, Permission::AuditRead | Permission::UsageRead)
        || operation.action == Action::ListNodes
    {
        // A file store keeps none of it.
        statuses.push(409);
    }
    if *operation.method != Method::GET {
        statuses.extend([409, 412, 415, 422]);
    }
    statuses
}

fn failure() -> Value {
    let schema = json!({ "$ref": "#/components/schemas/Failure" });
    json!({ "description": "Not done, and all that is wrong.", "content": { "application/json": { "schema": schema } } })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reference leads somewhere: a schema that is not there would only be missed by those who use it.
    #[test]
    fn the_document_is_whole() {
        let document: Value = serde_json::from_str(&document(None)).unwrap();
        let text = document.to_string();
        let references = text.split(r##""$ref":"#"##).skip(1).map(|rest| rest.split('"').next().unwrap());
        let missing: Vec<&str> = references.filter(|pointer| document.pointer(pointer).is_none()).collect();
        assert!(missing.is_empty(), "{missing:?}");
        let described = document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap());
        assert_eq!(described.filter(|(method, _)| *method != "parameters").count(), OPERATIONS.len());
        for operation in &OPERATIONS {
            let there = &document["paths"][operation.path][operation.method.as_str().to_ascii_lowercase()];
            assert_eq!(there["operationId"], operation.id);
            assert_eq!(there["x-permission"], operation.permission.label());
            let parameters = there["parameters"].as_array().unwrap();
            assert!(parameters.iter().all(|parameter| parameter["description"] != ""), "{}", operation.id);
        }
    }
}
