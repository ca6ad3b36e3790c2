//! What every answer of the API looks like: `success`, `result`, `links` and `errors`, always all four (V6).

use http::StatusCode;
use http::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, SET_COOKIE};
use serde::Serialize;
use serde_json::{Value, json};

use crate::auth::decision::{Denial, Denied};
use crate::control::Page;
use crate::manage::{Failure, Mistake};

/// Which revision an answer is of: on writes, the one that it made.
pub(super) static REVISION: HeaderName = HeaderName::from_static("keyward-revision");

/// An answer to somebody who got what was asked for. There may be a value in it, so it does not print.
pub(super) struct Answer {
    /// The result as JSON.
    pub(super) result: String,
    /// Where the next page is, for lists; `None` for everything else (V7, V8).
    pub(super) links: Option<Option<String>>,
    /// The revision that last touched what is answered.
    pub(super) etag: Option<u64>,
    /// The revision that was made.
    pub(super) revision: Option<u64>,
    /// What the browser shall keep.
    pub(super) cookie: Option<String>,
    /// 200, or 202 for what does not hold everywhere yet.
    pub(super) status: StatusCode,
    /// Whether it has no envelope: whoever asked knows nothing of it.
    pub(super) is_bare: bool,
}

impl Answer {
    /// One thing, or nothing.
    pub(super) fn of(result: &impl Serialize) -> Result<Self, Trouble> {
        Ok(Self {
            result: to_text(result)?,
            links: None,
            etag: None,
            revision: None,
            cookie: None,
            status: StatusCode::OK,
            is_bare: false,
        })
    }

    /// A list, and where it goes on.
    pub(super) fn list<T: Serialize>(items: &[T], next: Option<String>) -> Result<Self, Trouble> {
        Ok(Self { links: Some(next), ..Self::of(&items)? })
    }

    /// The same, of a record that this revision was the last to touch.
    pub(super) fn with_etag(self, revision: u64) -> Self {
        Self { etag: Some(revision), ..self }
    }

    /// The same, after a change.
    pub(super) fn after_change(self, revision: u64) -> Self {
        Self { revision: Some(revision), ..self }
    }

    /// The same, of one thing that says something more.
    pub(super) fn saying(mut self, name: &str, what: &impl Serialize) -> Self {
        if let Ok(Value::Object(mut fields)) = serde_json::from_str(&self.result) {
            fields.insert(name.to_owned(), json!(what));
            self.result = Value::Object(fields).to_string();
        }
        self
    }

    /// The same, with something for the browser to keep.
    pub(super) fn with_cookie(self, cookie: String) -> Self {
        Self { cookie: Some(cookie), ..self }
    }

    /// The same, for those who want the result alone.
    pub(super) fn without_envelope(self) -> Self {
        Self { is_bare: true, ..self }
    }

    /// The same, but it is not all done yet.
    pub(super) fn not_everywhere(self) -> Self {
        Self { status: StatusCode::ACCEPTED, ..self }
    }

    /// As it is sent.
    pub(super) fn page(self) -> Page {
        let links = match self.links {
            None => json!(null),
            Some(None) => json!({}),
            Some(Some(next)) => json!({ "next": next }),
        };
        let body = if self.is_bare {
            self.result
        } else {
            format!(r#"{{"success":true,"result":{},"links":{links},"errors":[]}}"#, self.result)
        };
        let mut page = Page::new(self.status, JSON, body);
        if let Some(revision) = self.etag {
            insert(&mut page.headers, ETAG, &format!("\"{revision}\""));
        }
        if let Some(cookie) = self.cookie {
            insert(&mut page.headers, SET_COOKIE, &cookie);
        }
        if let Some(revision) = self.revision {
            insert(&mut page.headers, REVISION.clone(), &revision.to_string());
        }
        page
    }
}

const JSON: &str = "application/json";

fn to_text(result: &impl Serialize) -> Result<String, Trouble> {
    serde_json::to_string(result)
        .map_err(|error| Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()))
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// One thing that is wrong.
#[derive(Debug, Serialize)]
struct Error {
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
}

/// An answer to somebody who did not get it, with all that is wrong at once.
#[derive(Debug)]
pub(super) struct Trouble {
    /// Its status.
    pub(super) status: StatusCode,
    errors: Vec<Error>,
    headers: Box<HeaderMap>,
}

impl Trouble {
    /// One thing is wrong.
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let errors = vec![Error { code, message: message.into(), field: None }];
        Self { status, errors, headers: Box::default() }
    }

    /// What was sent cannot be meant.
    pub(super) fn invalid(mistakes: Vec<Mistake>) -> Self {
        let error = |Mistake { field, why }| Error { code: "invalid_attribute", message: why, field: Some(field) };
        let errors = mistakes.into_iter().map(error).collect();
        Self { status: StatusCode::BAD_REQUEST, errors, headers: Box::default() }
    }

    /// There is no such thing, or none that the caller may see.
    pub(super) fn not_found(kind: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is no such {kind}"))
    }

    /// The caller may not.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// The caller cannot be known, or not yet.
    pub(super) fn denied(denied: &Denied) -> Self {
        let terms = denied.denial.terms();
        let mut trouble = Self::new(terms.status, terms.public_code, sentence(denied.denial));
        if let Some(exhausted) = denied.exhausted {
            trouble = trouble.retry_after(exhausted.retry_after);
        } else if terms.status == StatusCode::SERVICE_UNAVAILABLE {
            trouble = trouble.retry_after(1);
        }
        trouble
    }

    /// The same, with a header.
    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
        insert(&mut self.headers, name, value);
        self
    }

    /// The same, with the time after which it is worth trying again, in seconds.
    pub(super) fn retry_after(self, seconds: u64) -> Self {
        self.with(RETRY_AFTER, &seconds.to_string())
    }

    /// As it is sent.
    pub(super) fn page(self) -> Page {
        let errors = serde_json::to_string(&self.errors).unwrap_or_else(|_| "[]".to_owned());
        let body = format!(r#"{{"success":false,"result":null,"links":null,"errors":{errors}}}"#);
        let mut page = Page::new(self.status, JSON, body);
        page.headers = *self.headers;
        page.headers.remove(CONTENT_TYPE);
        page
    }
}

/// Unknown, revoked and malformed keys look alike from outside.
const fn sentence(denial: Denial) -> &'static str {
    match denial {
        Denial::MissingCredential => "an API key is needed, such as in Authorization: Bearer KEY",
        Denial::MalformedCredential
        | Denial::UnknownCredential
        | Denial::RevokedCredential
        | Denial::DisabledCredential
        | Denial::ExpiredCredential
        | Denial::SuspendedUser
        | Denial::DeadParent
        | Denial::SuspendedScope => "the API key is not valid",
        Denial::NoApiAccess => "the user of this API key may not use the API",
        Denial::AmbiguousCredential => "there must be one API key, once",
        Denial::AmbiguousPath => "the path can be read in more than one way",
        Denial::AddressNotAllowed => "the API key may not be used from this address",
        Denial::ReadOnlyKey => "the API key is read-only",
        Denial::OutsideScope => "this is outside the scope of the API key",
        Denial::WrongEnvironment => "the API key is of the other environment",
        Denial::RateLimited => "the API key has been used as often as its limit allows",
        Denial::ReplicaNotLoaded | Denial::ReplicaExpired => "the key store cannot be read at present",
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        let message = failure.to_string();
        match failure {
            Failure::NotFound(_) | Failure::LooksLikeValue => Self::new(StatusCode::NOT_FOUND, "not_found", message),
            Failure::Taken(_) => Self::new(StatusCode::CONFLICT, "taken", message),
            Failure::NotKept(_) => Self::new(StatusCode::CONFLICT, "not_recoverable", message),
            Failure::Revoked(_) => Self::new(StatusCode::CONFLICT, "revoked", message),
            Failure::Outrun(_) => Self::new(StatusCode::CONFLICT, "conflict", message),
            Failure::Invalid(mistakes) => Self::invalid(mistakes),
            Failure::ReadOnly(_) => Self::new(StatusCode::CONFLICT, "read_only_store", message),
            Failure::NoLedger(_) => Self::new(StatusCode::CONFLICT, "no_ledger", message),
            Failure::Unreadable(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "unreadable", message),
            // Where the store is, and what it says, is for the log.
            Failure::Store(error) => {
                tracing::warn!(%error, "the management API cannot use the store");
                let why = "the key store does not answer, or lets this server not do it (its log says which); nothing is known of what was asked";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why).retry_after(1)
            }
            Failure::HasKeysBelow(..) => Self::new(StatusCode::CONFLICT, "has_keys_below", message),
            Failure::BadTicket(_) => Self::new(StatusCode::FORBIDDEN, "bad_ticket", message),
            Failure::OutOfMemory => Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message).retry_after(1),
            Failure::Unsealable => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "unreadable", message),
            Failure::Random(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message).retry_after(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_always_has_its_four_parts() {
        let list = Answer::list(&[1], Some("http://h/v2/keys?cursor=a".to_owned())).unwrap().page();
        let expected = r#"{"success":true,"result":[1],"links":{"next":"http://h/v2/keys?cursor=a"},"errors":[]}"#;
        assert_eq!(list.body, expected);
        let last = Answer::list::<u8>(&[], None).unwrap().page();
        assert_eq!(last.body, r#"{"success":true,"result":[],"links":{},"errors":[]}"#);
        let one = Answer::of(&json!({})).unwrap().with_etag(7).after_change(8).page();
        assert_eq!(one.body, r#"{"success":true,"result":{},"links":null,"errors":[]}"#);
        assert_eq!((&one.headers[ETAG], &one.headers[&REVISION]), (&"\"7\"".parse().unwrap(), &"8".parse().unwrap()));
        let mistake = |field: &str| Mistake { field: field.to_owned(), why: "is missing".to_owned() };
        let trouble = Trouble::invalid(vec![mistake("name"), mistake("type")]).page();
        assert_eq!(
            (trouble.status, trouble.body.as_str()),
            (
                StatusCode::BAD_REQUEST,
                r#"{"success":false,"result":null,"links":null,"errors":[{"code":"invalid_attribute","message":"is missing","field":"name"},{"code":"invalid_attribute","message":"is missing","field":"type"}]}"#
            )
        );
    }

    #[test]
    fn what_cannot_be_known_is_503_and_never_401() {
        for denial in [Denial::ReplicaNotLoaded, Denial::ReplicaExpired] {
            let page = Trouble::denied(&denial.into()).page();
            assert_eq!((page.status.as_u16(), page.headers.contains_key(RETRY_AFTER)), (503, true));
        }
        let store = crate::store::StoreError::WrongPepper { store: "postgres://db/keys".into() };
        let page = Trouble::from(Failure::Store(store)).page();
        assert!(page.status.as_u16() == 503 && !page.body.contains("db/keys"), "{}", page.body);
    }
}
