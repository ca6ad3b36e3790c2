//! The management API under a prefix on the proxy listener, where the config says so: such a request is answered by those who
//! run Keyward and never goes to the upstream. It is handed to the control plane; no worker waits for a store.

use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;

use super::account::Account;
use super::body::ReplyBody;
use super::forward::{X_FORWARDED_PROTO, X_REQUEST_ID};
use super::request_id::RequestId;
use super::{Admission, Session};
use crate::auth::address::client_address;
use crate::control::desk::{Desk, Unanswered};
use crate::control::sent::Coming;
use crate::control::{Ask, Mounted, Page};
use crate::telemetry::metrics::Failure;

/// Where the API is mounted. Exactly this spelling of the prefix leads there; another one is a path like any other, which is
/// forwarded only with a key, and public nowhere (`auth/path.rs`).
pub(super) struct Mount {
    /// Such as `/v2`, or `/manage/v2`.
    prefix: Box<str>,
    desk: Desk,
}

/// What the API itself calls its prefix.
const OWN: &str = "/v2";

impl Mount {
    pub(super) fn new(prefix: Box<str>, desk: Desk) -> Self {
        Self { prefix, desk }
    }

    /// Whether a request is for the API.
    pub(super) fn has(&self, path: &str) -> bool {
        path.strip_prefix(&*self.prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// What stands before the prefix of the API's own.
    fn before(&self) -> &str {
        self.prefix.strip_suffix(OWN).unwrap_or_default()
    }
}

/// Has a request answered by the API.
pub(super) fn admit(request: Request<Incoming>, mount: &Mount, id: RequestId, mut account: Account) -> Admission {
    if account.session.has_too_many_requests() {
        account.failed(Failure::Overloaded);
        return Admission::Refuse(respond(mount.desk.apology(Unanswered::Overloaded), &id, account));
    }
    let desk = mount.desk.clone();
    let (ask, coming) = ask(request, mount, &account.session);
    account.managed(ask.client);
    Admission::Forward(Box::pin(async move {
        let page = account.watch().in_time(desk.ask(ask, coming)).await;
        let page = page.unwrap_or_else(|| {
            account.failed(Failure::RequestTimeout);
            desk.apology(Unanswered::OutOfTime)
        });
        respond(page, &id, account)
    }))
}

/// The question as the API hears it: by its own path, and from whom the proxy's rules say that it is.
fn ask(mut request: Request<Incoming>, mount: &Mount, session: &Session) -> (Ask, Coming) {
    // The host of a target goes before the header, and HTTP/2 has only that (RFC 9112 section 3.2.2).
    if let Some(host) = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
        request.headers_mut().insert(HOST, host);
    }
    let headers = request.headers();
    let client = client_address(session.peer, headers, &session.shared.trusted);
    let scheme = if is_secure(session, headers) { "https" } else { "http" };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let mounted = Mounted { origin: format!("{scheme}://{host}"), before: mount.before().to_owned() };
    let (mut ask, coming) = Coming::apart(request, session.peer);
    ask.path.drain(..mount.before().len());
    (Ask { client, mounted: Some(mounted), ..ask }, coming)
}

/// Whether the client speaks TLS, with us or with a trusted proxy.
fn is_secure(session: &Session, headers: &HeaderMap) -> bool {
    let said = headers.get(X_FORWARDED_PROTO).filter(|_| session.peer_is_trusted);
    said.map_or(session.is_secure, |said| said.as_bytes().eq_ignore_ascii_case(b"https"))
}

fn respond(mut page: Page, id: &RequestId, mut account: Account) -> Response<ReplyBody> {
    if let Some(key) = page.key.take() {
        account.asked_with(key);
    }
    let mut response = page.into_response();
    response.headers_mut().insert(X_REQUEST_ID, id.to_value());
    account.session.close_if_draining(response.headers_mut());
    account.answered(response.status().as_u16());
    ReplyBody::page(response.map(Bytes::from), account)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_of_the_prefix_leads_to_the_api() {
        let mount = |prefix: &str| Mount::new(prefix.into(), Desk::new(|_| unreachable!("nobody asks")).0);
        for (prefix, path, has) in [
            ("/v2", "/v2", true),
            ("/v2", "/v2/", true),
            ("/v2", "/v2/keys", true),
            ("/v2", "/v2/../secret", true),
            ("/v2", "/v2//keys", true),
            ("/v2", "/v20", false),
            ("/v2", "/V2/keys", false),
            ("/v2", "//v2/keys", false),
            ("/v2", "/%762/keys", false),
            ("/v2", "/v2%2fkeys", false),
            ("/v2", "/a/../v2/keys", false),
            ("/manage/v2", "/manage/v2/keys", true),
            ("/manage/v2", "/v2/keys", false),
            ("/v2", "*", false),
        ] {
            assert_eq!(mount(prefix).has(path), has, "{prefix} {path}");
        }
        assert_eq!((mount("/v2").before(), mount("/manage/v2").before()), ("", "/manage"));
    }
}
