//! What a client is told whose key is used too often: `Retry-After` (RFC 9110 section 10.2.3), and the limit as in
//! draft-ietf-httpapi-ratelimit-headers-11. Only the denial has it; on every answer it would cost every request.

use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use crate::auth::limit::Exhausted;

const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Adds to the headers of an answer when the next request will pass, and by which limit.
pub(super) fn tell(Exhausted { limit, retry_after }: &Exhausted, headers: &mut HeaderMap) {
    headers.insert(RETRY_AFTER, HeaderValue::from(*retry_after));
    let policy = format!("\"key\";q={};w={}", limit.requests(), limit.seconds());
    for (name, text) in [(RATELIMIT_POLICY, policy), (RATELIMIT, format!("\"key\";r=0;t={retry_after}"))] {
        // Digits and punctuation always can stand in a header.
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
}
