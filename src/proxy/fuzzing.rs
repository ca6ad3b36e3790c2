//! Bytes of a client, as far as the decision: through the guard, hyper and `authorize`, as a worker would take them.

mod outgoing; // what goes to the upstream

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use self::outgoing::forwarding;
use super::framing;
use super::head_guard::{HeadGuard, Heads};
use crate::auth::credential::Forms;
use crate::auth::decision::Permit;
use crate::auth::digest::{Digest, Pepper};
use crate::auth::grant::{
    Access, Environment, Grant, KeyIndex, Keys, Lineage, ParentIndex, RestrictionsIndex, ScopeIndex, Standing, State,
    TallyIndex, Timestamp, Unavailable, UserIndex,
};
use crate::auth::key::{Alphabet, Brand, KeyFormat, Shape};
use crate::auth::limit::Exhausted;
use crate::auth::path::percent_decode;
use crate::auth::route::{ClassRule, PathMode, Pattern, RequestTarget, Requirement, Routes, Rule};
use crate::auth::scope::{Scope, Step};
use crate::auth::{Facts, Locksmith, authorize};

/// The only key there is.
const SECRET: &[u8] = b"7e14204fcce1e00152b4";
/// It as user name without a password.
const IN_BASE64: &[u8] = b"N2UxNDIwNGZjY2UxZTAwMTUyYjQ6";

/// No valid key in, nothing out: whatever is let through has the key in its bytes, or goes to a public path.
pub fn head(data: &[u8]) {
    // The first byte says how the others come in pieces.
    let Some((size, data)) = data.split_first() else { return };
    let pieces = data.chunks(usize::from(*size).max(1)).map(<[u8]>::to_vec).rev().collect();
    let heads = Arc::<Heads>::default();
    let fed = Fed { pieces, guard: HeadGuard::new(heads.clone()) };
    let has_key = contains(&percent_decode(data), SECRET) || contains(data, SECRET) || contains(data, IN_BASE64);
    let gate = Arc::new(Gate::new());
    let service = service_fn(move |request: Request<Incoming>| {
        let permit = gate.pass(&request, heads.next_is_fit());
        if let Some(permit) = &permit {
            let public = request.uri().path().starts_with("/public/");
            assert!(if permit.grant().is_some() { has_key } else { public }, "{request:?}");
        }
        async move {
            let mut response = Response::new(NoBody);
            if permit.is_none() {
                *response.status_mut() = StatusCode::BAD_REQUEST;
            } else {
                let mut body = request.into_body();
                while let Some(Ok(_)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {}
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    let mut connection = std::pin::pin!(builder.half_close(true).serve_connection(TokioIo::new(fed), service));
    let mut cx = Context::from_waker(Waker::noop());
    // Nothing here ever waits, so what is not done by then does nothing more.
    for _ in 0..1_000 {
        if connection.as_mut().poll(&mut cx).is_ready() {
            return;
        }
    }
}

/// Every form there is.
pub(crate) fn all_forms() -> Forms {
    let header = Some(HeaderName::from_static("x-api-key"));
    Forms { organization: true, bearer: true, basic: true, bare: true, header, query: Some("api_key".into()) }
}

/// Keys of ours, and of 20 hex digits.
pub(crate) fn format() -> KeyFormat {
    let shape = Shape { name: "legacy".to_owned(), length: 20, alphabet: Alphabet::Hex };
    let Some(brand) = Brand::parse("kw") else { unreachable!("it is the brand of the example") };
    KeyFormat::new(brand, vec![shape])
}

/// A query on the first line, and fields on the others: what can be none is left out.
pub(crate) fn query_and_fields(data: &[u8]) -> (Option<&str>, HeaderMap) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let query = lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) {
            headers.append(name, value);
        }
    }
    (query, headers)
}

/// Whether some bytes stand within others.
pub(crate) fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// What a request passes.
struct Gate {
    routes: Routes,
    locksmith: Locksmith,
    keys: OneKey,
}

impl Gate {
    fn new() -> Self {
        let rule = |requirement| {
            let forms: Forms = all_forms();
            Rule { requirement, class: ClassRule::Method, environment: None, forms }
        };
        let (Ok(pepper), Ok(public)) =
            (Pepper::from_hex(&"5a".repeat(32)), Pattern::parse("/public/{*rest}", &[], Vec::new()))
        else {
            unreachable!("both are as in the example")
        };
        let format = format();
        let Some(digest) = format.parse(SECRET).map(|secret| secret.digest(&pepper)) else {
            unreachable!("it has the shape")
        };
        let routes = vec![(public, rule(Requirement::Nothing))];
        Self {
            routes: Routes::new(routes, rule(Requirement::Key), PathMode::Lenient),
            locksmith: Locksmith { format, pepper },
            keys: OneKey(digest),
        }
    }

    fn pass(&self, request: &Request<Incoming>, is_fit: bool) -> Option<Permit> {
        if !is_fit || framing::is_refused(request.method()).is_some() || framing::unfit(request, 100).is_some() {
            return None;
        }
        let target = RequestTarget { method: request.method(), uri: request.uri(), headers: request.headers() };
        let matched = self.routes.find(&target);
        let facts = Facts {
            method: request.method(),
            query: request.uri().query(),
            headers: request.headers(),
            client: Some(IpAddr::from([192, 0, 2, 1])),
        };
        authorize(&facts, &matched, &self.locksmith, &self.keys, Timestamp::from_millis(1)).ok()
    }
}

/// A key that may do everything.
struct OneKey(Digest);

impl Keys for OneKey {
    fn has_turned(&self) -> bool {
        false
    }

    fn grant(&self, digest: &Digest) -> Result<Option<Grant>, Unavailable> {
        Ok((*digest == self.0).then_some(Grant {
            key: KeyIndex(0),
            scope: ScopeIndex::EVERYWHERE,
            restrictions: RestrictionsIndex::NONE,
            lineage: Lineage::NONE,
            tally: TallyIndex::NONE,
            expires_at: Timestamp::NEVER,
            not_after: Timestamp::NEVER,
            access: Access::ReadWrite,
            environment: Environment::Live,
            state: State::Active,
            is_limited: false,
        }))
    }

    fn scope(&self, _: ScopeIndex) -> Option<&Scope> {
        None
    }

    fn scope_of_step(&self, _: &Step) -> Option<&Scope> {
        None
    }

    fn is_active(&self, index: ScopeIndex) -> bool {
        index == ScopeIndex::EVERYWHERE
    }

    fn standing(&self, _: UserIndex) -> Standing {
        Standing::Suspended
    }

    fn parent(&self, _: ParentIndex) -> Option<Grant> {
        None
    }

    fn allows(&self, restrictions: RestrictionsIndex, _: Option<IpAddr>) -> bool {
        restrictions == RestrictionsIndex::NONE
    }

    fn take(&self, _: &Grant) -> Result<(), Exhausted> {
        Ok(())
    }
}

/// A client's socket: gives its pieces, the last one first, then the end; takes whatever is written.
pub(super) struct Fed {
    pub(super) pieces: Vec<Vec<u8>>,
    pub(super) guard: HeadGuard,
}

impl AsyncRead for Fed {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        if let Some(mut piece) = this.pieces.pop() {
            if piece.len() > buffer.remaining() {
                this.pieces.push(piece.split_off(buffer.remaining()));
            }
            buffer.put_slice(&piece);
            this.guard.follow(&piece);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Fed {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// An answer without a body.
pub(super) struct NoBody;

impl Body for NoBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}
