//! Which fields behind a request's body reach the upstream, on routes that let some pass.
//!
//! A server may merge them with its headers. So none passes that could not be a header, and none that says where a message ends,
//! where it goes, who sent it or how it is to be read (RFC 9110 section 6.5.1; reliability catalogue 54).

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue, TRAILER};

use super::headers::{dashed, named_by_connection, passes_behind_body};

/// The fields that pass on a route.
#[derive(Debug, PartialEq, Eq)]
pub struct TrailerRules {
    /// What identity headers begin with.
    prefix: String,
    /// The headers that are the route's own, with dashes: that of keys, and what is injected.
    own: Vec<String>,
}

impl TrailerRules {
    /// Rules for a route with this prefix of identity headers and these headers of its own.
    pub fn new<'n>(prefix: &str, own: impl IntoIterator<Item = &'n HeaderName>) -> Self {
        let own = own.into_iter().map(|name| dashed(name.as_str())).collect();
        Self { prefix: dashed(&prefix.to_ascii_lowercase()), own }
    }

    fn pass(&self, name: &HeaderName) -> bool {
        passes_behind_body(name.as_str(), &self.prefix) && !self.own.contains(&dashed(name.as_str()))
    }
}

/// The trailers of one request.
#[derive(Debug)]
pub(super) struct Trailers {
    rules: Arc<TrailerRules>,
    /// What `Connection` declares to be of this hop: that holds for trailers as well (RFC 9110 section 7.6.1).
    of_this_hop: Vec<HeaderName>,
}

impl Trailers {
    /// Those of a request with these headers, as the client sent them.
    pub(super) fn of(headers: &HeaderMap, rules: &Arc<TrailerRules>) -> Self {
        Self { rules: rules.clone(), of_this_hop: named_by_connection(headers) }
    }

    /// What `Trailer` says to the upstream, of what it says to us. HTTP/1.1 sends none that was not announced.
    pub(super) fn announced(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let values = headers.get_all(TRAILER).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        let names = values.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
        let names: Vec<HeaderName> = names.filter(|name| self.pass(name)).collect();
        let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
        if names.is_empty() { None } else { HeaderValue::from_str(&names.join(", ")).ok() }
    }

    /// What remains of them; `None` if nothing does.
    pub(super) fn filter(&self, trailers: HeaderMap) -> Option<HeaderMap> {
        let mut kept = trailers;
        let going: Vec<HeaderName> = kept.keys().filter(|name| !self.pass(name)).cloned().collect();
        for name in going {
            kept.remove(name);
        }
        (!kept.is_empty()).then_some(kept)
    }

    fn pass(&self, name: &HeaderName) -> bool {
        self.rules.pass(name) && !self.of_this_hop.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailers(headers: &[(&str, &str)]) -> (Trailers, HeaderMap) {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap()))
            .fold(HeaderMap::new(), |mut all, (name, value)| {
                all.append(name, value);
                all
            });
        let own = [HeaderName::from_static("x-api-key"), HeaderName::from_static("remote-user")];
        (Trailers::of(&headers, &Arc::new(TrailerRules::new("X-Keyward-", &own))), headers)
    }

    fn left(trailers: &Trailers, sent: &[&str]) -> Vec<String> {
        let names = sent.iter().map(|name| HeaderName::from_bytes(name.as_bytes()).unwrap());
        let sent = names.map(|name| (name, HeaderValue::from_static("x"))).collect();
        trailers.filter(sent).map(|kept| kept.keys().map(ToString::to_string).collect()).unwrap_or_default()
    }

    #[test]
    fn r54_what_passes_could_be_no_other_header() {
        let (trailers, _) = trailers(&[("connection", "close, X-Hop")]);
        for name in ["x-checksum", "grpc-status", "content-digest", "content-md5", "etag", "signature", "server-timing"]
        {
            assert_eq!(left(&trailers, &[name, "x-hop", "host"]), [name]);
        }
        for name in [
            "Content-Length",
            "Content_Length",
            "Transfer-Encoding",
            "transfer.encoding",
            "Host",
            "TE",
            "Trailer",
            "Connection",
            "Keep-Alive",
            "Upgrade",
            "Proxy-Connection",
            "HTTP2-Settings",
            "Expect",
            "Authorization",
            "Proxy-Authorization",
            "Cookie",
            "Set-Cookie",
            "X-API-Key",
            "x_api_key",
            "X.Api~Key",
            "Remote-User",
            "REMOTE_USER",
            "X-Keyward-Key-Id",
            "x_keyward_user",
            "X-Keyward-",
            "X-Request-Id",
            "x_request_id",
            "Traceparent",
            "Tracestate",
            "Forwarded",
            "X-Forwarded-For",
            "x_forwarded_proto",
            "X-Real-IP",
            "X-Original-URL",
            "X-HTTP-Method-Override",
            "X-Hop",
            "Content-Type",
            "content_type",
            "Content-Encoding",
            "Content-Range",
            "Range",
            "If-Match",
            "Cache-Control",
            "Max-Forwards",
            "Referer",
            "Origin",
        ] {
            assert_eq!(left(&trailers, &[name]), [""; 0], "{name}");
        }
    }

    #[test]
    fn what_does_not_pass_is_not_announced() {
        for (sent, announced) in [
            (&[][..], None),
            (&[("trailer", "X-Checksum")][..], Some("x-checksum")),
            (&[("trailer", "X-One , ,Host"), ("trailer", "x-two,X-Api-Key")], Some("x-one, x-two")),
            (&[("trailer", "Host, X_Keyward_User, X-Hop"), ("connection", "x-hop")], None),
            (&[("trailer", "a b")], None),
        ] {
            let (trailers, headers) = trailers(sent);
            assert_eq!(
                trailers.announced(&headers).as_ref().map(|value| value.to_str().unwrap()),
                announced,
                "{sent:?}"
            );
        }
    }
}
