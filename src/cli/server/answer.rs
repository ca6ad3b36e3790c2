//! What an answer of the management API comes to: a result, or a failure in the words of the command line, with its exit code.

use http::StatusCode;
use http::header::LOCATION;
use serde::Deserialize;
use serde_json::Value;

use super::http::{Lost, Reply};
use crate::cli::console::printable;
use crate::cli::exit::Failure;
use crate::manage;
use crate::store::record::{Kind, RecordId};

/// What was asked for.
pub(super) struct Done {
    /// The result.
    pub(super) result: Value,
    /// Where the next page is.
    next: Option<String>,
}

/// The four parts of every answer.
#[derive(Deserialize)]
struct Envelope {
    success: bool,
    result: Value,
    links: Option<Links>,
    errors: Vec<Wrong>,
}

#[derive(Deserialize)]
struct Links {
    next: Option<String>,
}

/// One thing that is wrong.
#[derive(Deserialize)]
struct Wrong {
    code: String,
    message: String,
    field: Option<String>,
}

impl Done {
    /// Where the next page begins. Its host is whatever the server is called there; the way is known already.
    pub(super) fn cursor(&self) -> Option<String> {
        let (_, query) = self.next.as_deref()?.split_once('?')?;
        let cursor = query.split('&').find_map(|part| part.strip_prefix("cursor="))?;
        let Some(decoded) = crate::auth::query::decoded_value(cursor) else { return Some(cursor.to_owned()) };
        String::from_utf8(decoded.to_vec()).ok()
    }
}

/// Reads an answer.
pub(super) fn read(reply: &Reply, server: &str) -> Result<Done, Failure> {
    if reply.status.is_redirection() {
        let to = reply.headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("elsewhere");
        let to = printable(to);
        return Err(Failure::Failed(format!(
            "{server} leads on to {to}, which is not followed; give that to --server"
        )));
    }
    let Ok(Envelope { success, result, links, errors }) = serde_json::from_slice(&reply.body) else {
        let status = reply.status;
        let why = format!("{server} has answered {status}, but not as the management API does; is the URL right?");
        return Err(if status.is_server_error() { Failure::Unreachable(why) } else { Failure::Failed(why) });
    };
    if !success {
        return Err(failure(reply.status, &errors, server));
    }
    Ok(Done { result, next: links.and_then(|links| links.next) })
}

/// What went wrong, as it would be told of a store.
fn failure(status: StatusCode, errors: &[Wrong], server: &str) -> Failure {
    let (code, message) = errors.first().map_or(("", ""), |wrong| (wrong.code.as_str(), wrong.message.as_str()));
    let shown = printable(message);
    match (status, code) {
        (StatusCode::NOT_FOUND, _) => match named(message.strip_prefix("no ").unwrap_or_default()) {
            Some(id) => manage::Failure::NotFound(id).into(),
            None => Failure::NotFound(shown),
        },
        (_, "taken") => match named(message) {
            Some(id) => manage::Failure::Taken(id).into(),
            None => Failure::Conflict(shown),
        },
        (_, "revoked") => match named(message) {
            Some(id) => manage::Failure::Revoked(id).into(),
            None => Failure::Conflict(shown),
        },
        (StatusCode::PRECONDITION_FAILED, _) | (_, "conflict") => {
            Failure::Conflict("it was changed meanwhile; look at it and try again".to_owned())
        }
        (_, "has_keys_below") => Failure::Conflict(format!("{shown}; `keyward key delete --cascade` deletes them too")),
        (_, "not_recoverable") => Failure::Conflict(shown),
        // It tells of a parameter that the command line does not have.
        (_, "would_lock_out") => {
            let why = "this key could not take that back, since it would not work from this address any more";
            Failure::Conflict(format!("{why}; let another key do it, or do it on the store (--config)"))
        }
        (_, "read_only_store" | "no_ledger") => Failure::Failed(shown),
        (StatusCode::BAD_REQUEST, _) => {
            let told = errors.iter().map(|wrong| match &wrong.field {
                Some(field) => format!("{}: {}", printable(field), printable(&wrong.message)),
                None => printable(&wrong.message),
            });
            Failure::Usage(told.collect::<Vec<_>>().join("; "))
        }
        (StatusCode::SERVICE_UNAVAILABLE, _) => Failure::Unreachable(format!("{server}: {shown}")),
        (StatusCode::UNAUTHORIZED, _) => Failure::Failed(format!("{server} does not know who asks: {shown}")),
        (StatusCode::FORBIDDEN, _) => Failure::Failed(format!("{server} does not allow it: {shown}")),
        _ => Failure::Failed(format!("{server}: {status}: {shown}")),
    }
}

/// The record that a message begins with: `key k1 is there already`.
fn named(message: &str) -> Option<RecordId> {
    let mut words = message.split(' ');
    let (kind, id) = (Kind::parse(words.next()?)?, words.next()?);
    Some(RecordId::new(kind, &printable(id)))
}

/// Why nothing came back.
pub(super) fn lost(why: Lost, server: &str, again: bool) -> Failure {
    Failure::Unreachable(match why {
        Lost::NoConnection(why) => format!("{server} cannot be reached: {why}"),
        Lost::NoAnswer(why) if again => format!("{server} gives no answer: {why}"),
        // It may have been done, and was not sent again: the second time would hit what the first has changed.
        Lost::NoAnswer(why) => format!("{server} gives no answer: {why}; look whether it was done"),
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::cli::exit::Exit;

    fn told(status: u16, body: &str) -> (u8, String) {
        let status = StatusCode::from_u16(status).unwrap();
        let reply = Reply { status, headers: HeaderMap::new(), body: body.to_owned().into() };
        let failure = read(&reply, "https://k").map(|_| ()).unwrap_err();
        (Exit::from(&failure).code(), failure.to_string())
    }

    #[test]
    fn an_answer_that_says_no_has_the_words_and_the_code_of_the_command_line() {
        let wrong = |code: &str, message: &str| {
            format!(
                r#"{{"success":false,"result":null,"links":null,"errors":[{{"code":"{code}","message":"{message}"}}]}}"#
            )
        };
        for (status, code, message, exit, said) in [
            (404, "not_found", "no key k1", 4, "no key k1; `keyward key list` shows all"),
            (404, "not_found", "there is no such path", 4, "there is no such path"),
            (409, "taken", "key k1 is there already", 5, "key k1 is there already; `keyward key show k1` shows it"),
            (409, "taken", "the e-mail address a@b is there already", 5, "the e-mail address a@b is there already"),
            (
                409,
                "revoked",
                "key k1 is revoked, which is final",
                5,
                "key k1 is revoked, which is final; `keyward key create` makes a new one",
            ),
            (412, "precondition_failed", "x", 5, "it was changed meanwhile; look at it and try again"),
            (409, "no_ledger", "file:x keeps none", 1, "file:x keeps none"),
            (400, "invalid_attribute", "is missing", 2, "is missing"),
            (
                401,
                "invalid_credential",
                "the API key is not valid",
                1,
                "https://k does not know who asks: the API key is not valid",
            ),
            (
                403,
                "forbidden",
                "this needs a role with keys:write",
                1,
                "https://k does not allow it: this needs a role with keys:write",
            ),
            (429, "rate_limited", "too many", 1, "https://k: 429 Too Many Requests: too many"),
            (503, "unavailable", "the key store does not answer", 7, "https://k: the key store does not answer"),
        ] {
            assert_eq!(told(status, &wrong(code, message)), (exit, said.to_owned()), "{status} {code}");
        }
        let orders = told(403, &wrong("forbidden", "\\u001b[2J"));
        assert!(!orders.1.contains('\u{1b}'), "{orders:?}");
        for (status, exit) in [(200, 1), (302, 1), (404, 1), (502, 7)] {
            assert_eq!(told(status, "<html>").0, exit, "{status}");
        }
    }

    #[test]
    fn a_cursor_is_taken_from_the_link_and_nothing_else_of_it_is() {
        for (next, cursor) in [
            (Some("http://elsewhere/v2/keys?limit=2&cursor=a%2Fb"), Some("a/b")),
            (Some("http://elsewhere/v2/keys?limit=2"), None),
            (None, None),
        ] {
            let done = Done { result: Value::Null, next: next.map(str::to_owned) };
            assert_eq!(done.cursor().as_deref(), cursor, "{next:?}");
        }
    }
}
