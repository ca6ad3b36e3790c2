//! The part of the YAML that is about requests: the forms of credentials, routes, and how denials are answered.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The forms in which a request may present its key.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Credentials {
    /// `Authorization: APIKEY:ORGANIZATION <key>`, or another level of the scope tree instead of `ORGANIZATION`.
    pub(crate) organization: bool,
    /// `Authorization: Bearer <key>`.
    pub(crate) bearer: bool,
    /// `Authorization: Basic …` with the key as user name and an empty password.
    pub(crate) basic: bool,
    /// The key as the whole value of `Authorization`.
    pub(crate) bare: bool,
    /// The name of a header whose value is the key. `""` turns this form off.
    pub(crate) header: String,
    /// The name of a query parameter whose value is the key. `""` turns this form off.
    pub(crate) query: String,
    /// Whether the credential stays in the request that the upstream sees.
    pub(crate) forward: bool,
}

impl Default for Credentials {
    fn default() -> Self {
        Self {
            organization: true,
            bearer: true,
            basic: true,
            bare: false,
            header: "X-API-Key".to_owned(),
            query: "api_key".to_owned(),
            forward: false,
        }
    }
}

/// The forms that differ on this route. What is not named here is as in `credentials` at the top.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RouteCredentials {
    /// `Authorization: APIKEY:ORGANIZATION <key>`.
    pub(crate) organization: Option<bool>,
    /// `Authorization: Bearer <key>`.
    pub(crate) bearer: Option<bool>,
    /// `Authorization: Basic …` with the key as user name and an empty password.
    pub(crate) basic: Option<bool>,
    /// The key as the whole value of `Authorization`.
    pub(crate) bare: Option<bool>,
    /// The name of a header whose value is the key. `""` turns this form off.
    pub(crate) header: Option<String>,
    /// The name of a query parameter whose value is the key. `""` turns this form off.
    pub(crate) query: Option<String>,
    /// Whether the credential stays in the request that the upstream sees.
    pub(crate) forward: Option<bool>,
}

/// How refused requests are answered.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Deny {
    /// The format of the answer.
    pub(crate) format: DenyFormat,
    /// The format where `auto` finds no sign of what the client understands.
    pub(crate) fallback: Format,
}

impl Default for Deny {
    fn default() -> Self {
        Self { format: DenyFormat::Auto, fallback: Format::Xml }
    }
}

/// The format of an answer.
#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    /// Well-formed XML.
    Xml,
    /// An XML declaration, then `Access Denied`.
    XmlCablecast,
    /// An object with `success`, `result`, `links` and `errors`.
    Json,
    /// Problem details (RFC 9457).
    Problem,
    /// An OAuth 2 error (RFC 6749).
    Oauth,
    /// Plain text.
    Text,
}

/// The format of an answer, or `auto`.
#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DenyFormat {
    /// As gRPC what comes as gRPC; all else by the request's `Accept`, else by the ending of its path, else by its `Content-Type`.
    Auto,
    /// Well-formed XML.
    Xml,
    /// An XML declaration, then `Access Denied`.
    XmlCablecast,
    /// An object with `success`, `result`, `links` and `errors`.
    Json,
    /// Problem details (RFC 9457).
    Problem,
    /// An OAuth 2 error (RFC 6749).
    Oauth,
    /// Plain text.
    Text,
    /// `grpc-status` and `grpc-message` in the headers, with status 200; `auto` takes it for what comes as gRPC.
    Grpc,
}

/// A format, or more about the answer.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum RouteDeny {
    /// The format alone.
    Format(DenyFormat),
    /// Format, status and body.
    Settings(DenySettings),
}

/// How requests that this route refuses are answered.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DenySettings {
    /// The format of the answer; as in `deny` at the top when it is left out.
    pub(crate) format: Option<DenyFormat>,
    /// The status instead of 401 and 403, for clients that expect an odd one. Other statuses stay.
    #[schemars(range(min = 200, max = 599))]
    pub(crate) status: Option<u64>,
    /// The body instead of the format's own.
    pub(crate) body: Option<String>,
}

/// One value or a list.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum OneOrMany {
    /// One.
    One(String),
    /// A list.
    Many(Vec<String>),
}

/// A rule for the requests that it matches.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["path"]))]
pub(crate) struct Route {
    /// The path, with captures: `/v0/{name}` for any one segment, `/public/{*rest}` for all that follows, if it is nothing
    /// too: `/a/{*rest}` is for `/a` as well, but where `auth` is `none` or `class` is `read`. A capture named `domain`,
    /// `organization`, `project` or `scene` must be within the scope of the key.
    #[schemars(example = "/public/{*rest}")]
    pub(crate) path: Option<String>,
    /// A host name or a list of them, without port; `*.example.com` for every name below. Without it: any host.
    pub(crate) hosts: Option<OneOrMany>,
    /// A method or a list of them. Without it: any method.
    pub(crate) methods: Option<OneOrMany>,
    /// Whether a key is needed.
    pub(crate) auth: Auth,
    /// What the requests do, for keys that are read-only.
    pub(crate) class: Class,
    /// The environment that keys must be of. Without it: both.
    pub(crate) env: Option<Env>,
    /// The forms of credentials that differ here.
    pub(crate) credentials: RouteCredentials,
    /// How requests that are refused here are answered: a format, or a map.
    pub(crate) deny: Option<RouteDeny>,
    /// What is told to the upstream about the caller in words of its own.
    pub(crate) inject: Inject,
    /// Whether the upstream gets the trailers of requests, but for those that could pass for headers that matter.
    pub(crate) trailers: bool,
}

/// What holds for requests that match no route.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DefaultRoute {
    /// Whether a key is needed.
    pub(crate) auth: Auth,
    /// What the requests do, for keys that are read-only.
    pub(crate) class: Class,
    /// The environment that keys must be of. Without it: both.
    pub(crate) env: Option<Env>,
    /// The forms of credentials that differ here.
    pub(crate) credentials: RouteCredentials,
    /// How requests that are refused here are answered: a format, or a map.
    pub(crate) deny: Option<RouteDeny>,
    /// What is told to the upstream about the caller in words of its own.
    pub(crate) inject: Inject,
    /// Whether the upstream gets the trailers of requests, but for those that could pass for headers that matter.
    pub(crate) trailers: bool,
}

/// Whether a key is needed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Auth {
    /// A key is needed.
    #[default]
    Key,
    /// Everybody passes.
    None,
}

/// What requests do to the upstream.
#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Class {
    /// GET, HEAD and OPTIONS read; everything else writes.
    #[default]
    Method,
    /// They only read, whatever the method.
    Read,
    /// They write, whatever the method: read-only keys are refused.
    Write,
}

/// The environment of a key.
#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Env {
    /// Production.
    Live,
    /// Sandbox.
    Test,
}

/// What is told to the upstream about the caller. What the client itself sent under these names is removed.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Inject {
    /// Query parameters by name.
    pub(crate) query: BTreeMap<String, IdentityValue>,
    /// Headers by name.
    pub(crate) header: BTreeMap<String, IdentityValue>,
}

/// Something about the caller.
#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum IdentityValue {
    /// The id of its key.
    KeyId,
    /// The name of its key.
    KeyName,
    /// The user that its key was handed to.
    User,
    /// The organization that its key's scope is in.
    Organization,
    /// Its key's scope, as its path.
    Scope,
}
