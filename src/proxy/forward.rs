//! The request as the upstream gets it: without the credential, without what is of one hop or could pass for ours, and
//! with who the caller is. Every other byte passes unchanged.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use http::header::{
    AUTHORIZATION, CONNECTION, Entry, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, REFERER, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;

use super::headers::{add_websocket, dashed, remove_lines, remove_spellings, strip_request};
use super::linger;
use super::request_id::RequestId;
use super::trace::Onward;
use super::trailers::{TrailerRules, Trailers};
use super::upstream::Upload;
use super::watch::Watch;
use super::{IdentityValue, Inject, InjectInto, RouteSettings};
use crate::auth::address::{Networks, X_FORWARDED_FOR, vouched_for};
use crate::auth::decision::{Permit, Removals};
use crate::auth::grant::{Grant, Keys, ScopeIndex};
use crate::auth::query;
use crate::auth::route::Class;
use crate::auth::scope::{Level, Scope};
use crate::replica::{Names, View};
use crate::telemetry::metrics::Failure;

/// What a proxy before us says of how the client came.
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The id of a request, for finding it in logs.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How many headers are added to most requests.
const ADDED_HEADERS: usize = 9;

/// A request that may be sent, once. Only a [`Permit`] makes one.
pub(super) struct Outbound {
    request: Option<Request<Upload>>,
    /// The client's connection, where it asks for a WebSocket.
    tunnel: Option<OnUpgrade>,
    /// Whether it only looks, so that it may be asked twice (RFC 9110 section 9.2.1).
    looks: bool,
}

/// The names under which the upstream is told who the caller is.
pub(super) struct IdentityNames {
    prefix: String,
    key_id: HeaderName,
    organization: HeaderName,
    scope: HeaderName,
    access: HeaderName,
    env: HeaderName,
    user: HeaderName,
}

impl IdentityNames {
    /// Names with this prefix; it has been checked to be the beginning of a header name. Those with the default prefix are
    /// static: a clone of another name is an atomic increment, six times a request.
    pub(super) fn new(prefix: &str) -> Option<Self> {
        let prefix = prefix.to_ascii_lowercase();
        if prefix == "x-keyward-" {
            return Some(Self {
                prefix: dashed(&prefix),
                key_id: HeaderName::from_static("x-keyward-key-id"),
                organization: HeaderName::from_static("x-keyward-organization"),
                scope: HeaderName::from_static("x-keyward-scope"),
                access: HeaderName::from_static("x-keyward-access"),
                env: HeaderName::from_static("x-keyward-env"),
                user: HeaderName::from_static("x-keyward-user"),
            });
        }
        let name = |rest: &str| HeaderName::from_bytes(format!("{prefix}{rest}").as_bytes()).ok();
        Some(Self {
            key_id: name("key-id")?,
            organization: name("organization")?,
            scope: name("scope")?,
            access: name("access")?,
            env: name("env")?,
            user: name("user")?,
            prefix: dashed(&prefix),
        })
    }
}

/// Where a request came from, and what it is called.
pub(super) struct Origin<'o> {
    /// The peer's address as a header value.
    pub(super) peer: &'o HeaderValue,
    /// Whose forwarding headers are believed; `None` where the peer's are not.
    pub(super) trusted: Option<&'o Networks>,
    /// Whether it speaks TLS.
    pub(super) is_secure: bool,
    /// The client behind trusted proxies, if it is known.
    pub(super) client: Option<IpAddr>,
    /// The request's id.
    pub(super) id: &'o RequestId,
    /// The trace that it belongs to.
    pub(super) onward: Onward<'o>,
    /// What `Host` is for a client that sends none.
    pub(super) default_host: &'o HeaderValue,
}

/// What is known of the caller, for one request.
struct Identity<'i> {
    grant: &'i Grant,
    names: Names<'i>,
    scope: Option<&'i Scope>,
}

impl Outbound {
    /// Edits a request in place into the one that is sent.
    pub(super) fn new(
        request: Request<Incoming>,
        permit: Permit,
        settings: &RouteSettings,
        names: &IdentityNames,
        view: &View,
        origin: &Origin<'_>,
    ) -> Result<Self, Failure> {
        let lingers = linger::is_wanted(&request);
        let looks = is_look(&request, permit.class());
        let may_tunnel = is_bare_get(&request);
        let mut request = request.map(|body| Upload::new(body, lingers));
        let announced = settings.trailers.as_ref().and_then(|rules| keep_trailers(&mut request, rules));
        let asks_for_tunnel = edit(&mut request, permit, settings, names, view, origin)?;
        if let Some(announced) = announced {
            request.headers_mut().insert(TRAILER, announced);
        }
        let tunnel = (asks_for_tunnel && may_tunnel).then(|| {
            add_websocket(request.headers_mut());
            hyper::upgrade::on(&mut request)
        });
        Ok(Self { request: Some(request), looks: looks && tunnel.is_none(), tunnel })
    }

    /// Writes it as HTTP/2 has it: the host in the target, and nothing about the connection but that trailers are welcome
    /// (RFC 9113 sections 8.2.2 and 8.3.1). WebSockets are of HTTP/1.1.
    pub(super) fn become_http2(&mut self, scheme: &'static str) -> Result<(), Failure> {
        self.tunnel = None;
        let Some(request) = &mut self.request else { return Err(Failure::Broken) };
        let headers = request.headers_mut();
        for name in [CONNECTION, UPGRADE, TRANSFER_ENCODING] {
            headers.remove(name);
        }
        headers.insert(TE, HeaderValue::from_static("trailers"));
        let host = headers.remove(HOST);
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Scheme::try_from(scheme).ok();
        parts.authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Failure::BadRequest)?;
        *request.version_mut() = Version::HTTP_2;
        Ok(())
    }

    /// Notes which request it is that it was.
    pub(super) fn belong_to(&mut self, client: &Arc<Watch>) {
        if let Some(request) = &mut self.request {
            request.body_mut().belong_to(client);
        }
    }

    /// Takes the request out, for sending it; `None` when it has been sent.
    pub(super) fn take(&mut self) -> Option<Request<Upload>> {
        self.request.take()
    }

    /// A copy of its head, if it may be sent twice and has no body.
    pub(super) fn spare(&self) -> Option<Box<Request<()>>> {
        if self.looks { self.head() } else { None }
    }

    /// A copy of its head.
    pub(super) fn head(&self) -> Option<Box<Request<()>>> {
        let request = self.request.as_ref()?;
        let mut head = Box::new(Request::new(()));
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.version_mut() = request.version();
        *head.headers_mut() = request.headers().clone();
        Some(head)
    }

    /// Puts a request back that is to be sent once more.
    pub(super) fn put_back(&mut self, request: Request<Upload>) {
        self.request = Some(request);
    }

    /// The client's connection, where it asked for a WebSocket.
    pub(super) fn take_tunnel(&mut self) -> Option<OnUpgrade> {
        self.tunnel.take()
    }
}

/// Edits everything but the body, and says whether a WebSocket was asked for.
pub(super) fn edit<B: Body>(
    request: &mut Request<B>,
    permit: Permit,
    settings: &RouteSettings,
    names: &IdentityNames,
    view: &View,
    origin: &Origin<'_>,
) -> Result<bool, Failure> {
    let grant = permit.grant().copied();
    let identity = grant.as_ref().map(|grant| Identity::of(grant, view));
    let removals = if settings.forward_credential { Removals::default() } else { permit.into_removals() };

    let host = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    let version = request.version();
    let in_chunks = has_unexpected_chunks(request);
    let headers = request.headers_mut();
    set_host(headers, version, host, origin.default_host);
    remove_credential(headers, &removals);
    let asks_for_tunnel = strip_request(headers, &names.prefix, origin.trusted.is_some());
    // Grown once, not twice.
    headers.reserve(ADDED_HEADERS);
    add_origin(headers, origin);
    if let Some(identity) = &identity {
        add_identity(headers, identity, names);
    }
    for inject in &settings.inject {
        if let InjectInto::Header(name) = &inject.into {
            inject_header(headers, name, identity.as_ref().and_then(|i| i.value(inject.value)));
        }
    }
    if in_chunks {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(uri) = rewrite(request.uri(), removals.query, &settings.inject, identity.as_ref())? {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_11;
    Ok(asks_for_tunnel)
}

impl<'i> Identity<'i> {
    fn of(grant: &'i Grant, view: &'i View) -> Self {
        let scope = (grant.scope != ScopeIndex::EVERYWHERE).then(|| view.scope(grant.scope)).flatten();
        Self { grant, names: view.names(grant.key), scope }
    }

    fn value(&self, value: IdentityValue) -> Option<String> {
        match value {
            IdentityValue::KeyId => Some(self.names.id.to_owned()),
            IdentityValue::KeyName => Some(self.names.name.to_owned()),
            IdentityValue::User => self.names.user.map(str::to_owned),
            IdentityValue::Organization => self.scope?.id_at(Level::Organization).map(str::to_owned),
            IdentityValue::Scope => self.scope.map(ToString::to_string),
        }
    }
}

/// Whether a body comes in chunks where none is expected. hyper sends such a request without its body, unless told to.
fn has_unexpected_chunks<B: Body>(request: &Request<B>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
        && !request.body().is_end_stream()
        && request.body().size_hint().exact().is_none()
}

/// Lets some trailers pass, and returns what is announced of them: where a length is known beforehand, HTTP/1.1 has none.
fn keep_trailers(request: &mut Request<Upload>, rules: &Arc<TrailerRules>) -> Option<HeaderValue> {
    if request.body().is_end_stream() {
        return None;
    }
    let trailers = Trailers::of(request.headers(), rules);
    let is_in_chunks = request.body().size_hint().exact().is_none();
    let announced = is_in_chunks.then(|| trailers.announced(request.headers())).flatten();
    request.body_mut().keep(trailers);
    announced
}

/// Whether a request changes nothing, by its method and by what is said of its route, and is all in its head.
fn is_look<B: Body>(request: &Request<B>, class: Class) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD) && class == Class::Read && request.body().is_end_stream()
}

/// Whether it is a request that may ask for a WebSocket (RFC 6455 section 4.1).
fn is_bare_get<B: Body>(request: &Request<B>) -> bool {
    request.method() == Method::GET && request.version() == Version::HTTP_11 && request.body().is_end_stream()
}

/// The host of an absolute target goes before the header (RFC 9112 section 3.2.2).
fn set_host(headers: &mut HeaderMap, version: Version, of_target: Option<HeaderValue>, default: &HeaderValue) {
    if let Some(host) = of_target {
        headers.insert(HOST, host);
    } else if version < Version::HTTP_11 && !headers.contains_key(HOST) {
        headers.insert(HOST, default.clone());
    }
}

fn remove_credential(headers: &mut HeaderMap, removals: &Removals) {
    remove_lines(headers, &AUTHORIZATION, &removals.authorization);
    if let Some(name) = &removals.header_name {
        remove_lines(headers, name, &removals.header);
    }
    if let Some(lines) = &removals.referer {
        headers.remove(REFERER);
        for line in lines {
            headers.append(REFERER, line.clone());
        }
    }
}

/// Says where the request came from. What an untrusted peer said of it has been stripped.
fn add_origin(headers: &mut HeaderMap, origin: &Origin<'_>) {
    let is_trusted = origin.trusted.is_some();
    let hops = origin.trusted.and_then(|trusted| hops_before(headers, origin, trusted));
    headers.insert(X_FORWARDED_FOR, hops.unwrap_or_else(|| origin.peer.clone()));
    // The chain continues in one header; a second one that lacks this hop would contradict it.
    if is_trusted {
        headers.remove(FORWARDED);
        correct_real_ip(headers, origin.client);
    }
    if !is_trusted || !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(if origin.is_secure { "https" } else { "http" }));
    }
    let says_host = is_trusted && headers.contains_key(X_FORWARDED_HOST);
    if let Some(host) = headers.get(HOST).filter(|_| !says_host).cloned() {
        headers.insert(X_FORWARDED_HOST, host);
    }
    headers.insert(X_REQUEST_ID, origin.id.to_value());
    origin.onward.tell(headers, origin.id);
}

/// Balancers that append to a list pass on what the client says here: it is either who was judged, or nobody.
fn correct_real_ip(headers: &mut HeaderMap, client: Option<IpAddr>) {
    if let Entry::Occupied(mut said) = headers.entry(X_REAL_IP) {
        match client.and_then(|client| HeaderValue::from_str(&client.to_string()).ok()) {
            Some(client) => drop(said.insert(client)),
            None => drop(said.remove()),
        }
    }
}

/// The peer behind those whom it vouches for: the client first, as far as it is known, and then the proxies between. What
/// the client itself has put before that goes no further.
fn hops_before(headers: &HeaderMap, origin: &Origin<'_>, trusted: &Networks) -> Option<HeaderValue> {
    let mut hops = vouched_for(headers, trusted);
    *hops.first_mut()? = origin.client;
    let mut list = String::new();
    for hop in hops {
        match hop {
            Some(address) => list.push_str(&format!("{address}, ")),
            None => list.push_str("unknown, "),
        }
    }
    list.push_str(origin.peer.to_str().ok()?);
    HeaderValue::try_from(list).ok()
}

fn add_identity(headers: &mut HeaderMap, identity: &Identity<'_>, names: &IdentityNames) {
    insert(headers, &names.key_id, identity.names.id);
    headers.insert(&names.access, HeaderValue::from_static(identity.grant.access.label()));
    headers.insert(&names.env, HeaderValue::from_static(identity.grant.environment.label()));
    if let Some(scope) = identity.scope {
        insert(headers, &names.scope, &scope.to_string());
        if let Some(organization) = scope.id_at(Level::Organization) {
            insert(headers, &names.organization, organization);
        }
    }
    if let Some(user) = identity.names.user {
        insert(headers, &names.user, user);
    }
}

/// A value that no header can hold (a name with a line break, say) is left out.
fn insert(headers: &mut HeaderMap, name: &HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert(name, value);
    }
}

fn inject_header(headers: &mut HeaderMap, name: &HeaderName, value: Option<String>) {
    remove_spellings(headers, name);
    if let Some(value) = value {
        insert(headers, name, &value);
    }
}

/// The target that is sent, where it differs from the one that came: in origin form, and with its query edited. One that
/// cannot be edited is not sent at all.
fn rewrite(
    uri: &Uri,
    mut cuts: Vec<Range<usize>>,
    injects: &[Inject],
    identity: Option<&Identity<'_>>,
) -> Result<Option<Uri>, Failure> {
    let injected: Vec<(&str, Option<String>)> = injects
        .iter()
        .filter_map(|inject| match &inject.into {
            InjectInto::Query(name) => Some((&**name, identity.and_then(|i| i.value(inject.value)))),
            InjectInto::Header(_) => None,
        })
        .collect();
    if cuts.is_empty() && injected.is_empty() && uri.authority().is_none() {
        return Ok(None);
    }
    let sent = uri.query().unwrap_or_default();
    cuts.extend(injected.iter().flat_map(|(name, _)| query::lookalikes(sent, name)));
    cuts.sort_unstable_by_key(|cut| cut.start);
    cuts.dedup();
    let mut query = query::without(sent, &cuts);
    for (name, value) in injected.iter().filter_map(|(name, value)| Some((name, value.as_deref()?))) {
        query::append(&mut query, name, value);
    }
    // A query that was there and empty from the start stays: `/a?` is not `/a`.
    let keeps_mark = !query.is_empty() || (uri.query().is_some() && cuts.is_empty());
    let target = if keeps_mark { format!("{}?{query}", uri.path()) } else { uri.path().to_owned() };
    PathAndQuery::try_from(target).map(|target| Some(Uri::from(target))).map_err(|_| Failure::HeadTooLarge)
}
