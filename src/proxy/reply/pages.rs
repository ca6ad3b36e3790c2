//! The texts of answers, and which format a client reads.

use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderValue;
use serde_json::json;

use super::{Answer, Deny, Format, Page, grpc};
use crate::auth::credential::Forms;
use crate::auth::decision::Denial;
use crate::telemetry::metrics::Failure;

/// Cablecast prints this declaration with a space before `?>`, and no line break after `Access Denied` (B23).
const CABLECAST: &str = "<?xml version=\"1.0\" encoding=\"utf-8\" ?>\n";

/// What a client is told.
struct Wording {
    code: &'static str,
    title: &'static str,
    detail: &'static str,
}

fn wording(answer: Answer) -> Wording {
    let (code, title, detail) = match answer {
        Answer::Denial(denial) => (denial.terms().public_code, title(denial), detail(denial)),
        Answer::Failure(Failure::BadRequest) => {
            ("bad_request", "Bad Request", "The request cannot be forwarded as it stands.")
        }
        Answer::Failure(Failure::HeadTooLarge) => {
            ("head_too_large", "Request Header Fields Too Large", "The request has too many header fields.")
        }
        Answer::Failure(Failure::MethodRefused) => {
            ("method_refused", "Not Implemented", "Requests with this method are not forwarded.")
        }
        Answer::Failure(Failure::Unreachable) => ("bad_gateway", "Bad Gateway", "The server behind cannot be reached."),
        Answer::Failure(Failure::Broken) => ("bad_gateway", "Bad Gateway", "The server behind gave no usable answer."),
        Answer::Failure(Failure::Overloaded) => {
            ("overloaded", "Service Unavailable", "There are too many requests at the moment.")
        }
        Answer::Failure(Failure::ClientTimeout) => {
            ("request_timeout", "Request Timeout", "The request was not sent in time.")
        }
        Answer::Failure(Failure::Timeout) => {
            ("gateway_timeout", "Gateway Timeout", "The server behind did not answer in time.")
        }
        Answer::Failure(Failure::RequestTimeout) => {
            ("gateway_timeout", "Gateway Timeout", "The request took longer than a request may.")
        }
        Answer::Failure(Failure::Stopping) => ("unavailable", "Service Unavailable", "The server is being stopped."),
    };
    Wording { code, title, detail }
}

fn title(denial: Denial) -> &'static str {
    match denial.terms().status {
        StatusCode::BAD_REQUEST => "Bad Request",
        StatusCode::TOO_MANY_REQUESTS => "Too Many Requests",
        StatusCode::SERVICE_UNAVAILABLE => "Service Unavailable",
        _ => "Access Denied",
    }
}

fn detail(denial: Denial) -> &'static str {
    match denial {
        Denial::MissingCredential => "This request needs an API key.",
        Denial::MalformedCredential
        | Denial::UnknownCredential
        | Denial::RevokedCredential
        | Denial::DisabledCredential
        | Denial::ExpiredCredential
        | Denial::SuspendedScope
        | Denial::SuspendedUser
        | Denial::DeadParent => "The API key is not valid.",
        Denial::AmbiguousCredential => "The request carries more than one API key; send exactly one.",
        Denial::AmbiguousPath => "The path can be read in more than one way; send it in its plain form.",
        Denial::AddressNotAllowed => "The API key may not be used from this address.",
        Denial::ReadOnlyKey => "The API key may only read.",
        Denial::OutsideScope => "The API key does not reach this resource.",
        Denial::WrongEnvironment => "The API key belongs to another environment.",
        Denial::NoApiAccess => "The owner of the API key may not use the API.",
        Denial::RateLimited => "The API key has been used too often; try again later.",
        Denial::ReplicaNotLoaded | Denial::ReplicaExpired => {
            "API keys cannot be checked at the moment; try again shortly."
        }
    }
}

/// Makes one page. A route's own status and body stand for its 401s and 403s only.
pub(super) fn page(format: Format, answer: Answer, deny: &Deny) -> Page {
    let status = answer.status();
    let is_refusal = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    let own_body = deny.body.as_ref().filter(|_| is_refusal).cloned();
    let content_type = HeaderValue::from_static(content_type(format));
    if format == Format::Grpc {
        let message = own_body.unwrap_or_else(|| wording(answer).detail.to_owned());
        let grpc = Some(grpc::headers(status, &message));
        return Page { status: StatusCode::OK, content_type, body: Bytes::new(), grpc };
    }
    Page {
        status: deny.status.filter(|_| is_refusal).unwrap_or(status),
        content_type,
        body: Bytes::from(own_body.unwrap_or_else(|| body(format, status, &wording(answer)))),
        grpc: None,
    }
}

fn content_type(format: Format) -> &'static str {
    match format {
        Format::Xml | Format::XmlCablecast => "text/xml; charset=utf-8",
        Format::Json | Format::Oauth => "application/json",
        Format::Problem => "application/problem+json",
        Format::Text => "text/plain; charset=utf-8",
        Format::Grpc => grpc::MEDIA_TYPE,
    }
}

fn body(format: Format, status: StatusCode, Wording { code, title, detail }: &Wording) -> String {
    match format {
        Format::Xml => format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<error><code>{}</code><message>{}</message><detail>{}</detail></error>\n",
            escape_xml(code),
            escape_xml(title),
            escape_xml(detail)
        ),
        Format::XmlCablecast => format!("{CABLECAST}{title}"),
        Format::Json => {
            json!({"success": false, "result": null, "links": null, "errors": [{"code": code, "message": title, "detail": detail}]}).to_string()
        }
        Format::Problem => {
            json!({"type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail, "code": code}).to_string()
        }
        Format::Oauth => json!({"error": oauth_error(status), "error_description": detail}).to_string(),
        Format::Text => format!("{title}: {detail}\n"),
        Format::Grpc => String::new(),
    }
}

/// RFC 6750 section 3.1; outages as in RFC 6749 section 4.1.2.1.
fn oauth_error(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "invalid_token",
        StatusCode::FORBIDDEN => "insufficient_scope",
        // Nothing is wrong with the request: the same one passes later.
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => "temporarily_unavailable",
        _ if status.is_client_error() => "invalid_request",
        _ => "server_error",
    }
}

fn escape_xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A challenge for each scheme that is on. Basic has a line of its own, the first: Subversion and `wget --user` send it
/// only when it is offered, and do not look behind a comma.
pub(super) fn challenges(forms: &Forms) -> Vec<HeaderValue> {
    let basic = forms.basic.then(|| "Basic realm=\"keyward\"".to_owned());
    let bearer = forms.bearer.then(|| "Bearer realm=\"keyward\"".to_owned());
    let key = (forms.organization || forms.bare || forms.header.is_some() || forms.query.is_some()).then(|| {
        let header = forms.header.as_ref().map(|name| format!(", header={}", quoted(name.as_str())));
        let query = forms.query.as_ref().map(|name| format!(", query={}", quoted(name)));
        format!("ApiKey realm=\"keyward\"{}{}", header.unwrap_or_default(), query.unwrap_or_default())
    });
    let others: Vec<String> = bearer.into_iter().chain(key).collect();
    let others = (!others.is_empty()).then(|| others.join(", "));
    basic.into_iter().chain(others).filter_map(|line| HeaderValue::from_str(&line).ok()).collect()
}

/// A quoted string of RFC 9110.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The format that a client prefers among those we have; `None` if it does not say.
pub(super) fn format_of_accept(accept: &str) -> Option<Format> {
    match accept {
        // What most clients send, without a closer look.
        "*/*" => return None,
        "application/xml" | "text/xml" => return Some(Format::Xml),
        "application/json" => return Some(Format::Json),
        _ => {}
    }
    let mut best: Option<(Format, f32)> = None;
    for item in accept.split(',') {
        let (media, parameters) = item.split_once(';').unwrap_or((item, ""));
        let quality =
            parameters.split(';').find_map(|p| p.trim().strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
        if let Some(format) = format_of_media_type(media)
            && quality > best.map_or(0.0, |(_, q)| q)
        {
            best = Some((format, quality));
        }
    }
    best.map(|(format, _)| format)
}

/// The format that goes with a media type.
pub(super) fn format_of_media_type(media: &str) -> Option<Format> {
    let essence = media.split(';').next().unwrap_or_default().trim();
    let is = |name: &str| essence.eq_ignore_ascii_case(name);
    let ends_with = |suffix: &str| {
        essence
            .len()
            .checked_sub(suffix.len())
            .and_then(|at| essence.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    };
    if is("application/xml") || is("text/xml") {
        Some(Format::Xml)
    } else if is("application/json") {
        Some(Format::Json)
    } else if is("application/problem+json") {
        Some(Format::Problem)
    } else if is("text/plain") {
        Some(Format::Text)
    } else if ends_with("+json") {
        Some(Format::Json)
    } else if ends_with("+xml") {
        // Browsers ask for application/xhtml+xml; what they get is XML that they can show.
        Some(Format::Xml)
    } else {
        None
    }
}

/// The format that goes with the ending of a path.
pub(super) fn format_of_ending(path: &str) -> Option<Format> {
    let path = path.as_bytes();
    let dot = path.iter().rev().take("atom.".len()).position(|byte| *byte == b'.')?;
    match &path[path.len() - dot..] {
        b"xml" | b"xsl" | b"xspf" | b"rss" | b"atom" => Some(Format::Xml),
        b"json" => Some(Format::Json),
        b"txt" => Some(Format::Text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::reply::FormatRule;

    fn deny() -> Deny {
        Deny { format: FormatRule::Negotiated(Format::Xml), status: None, body: None }
    }

    fn text(format: Format, denial: Denial) -> String {
        String::from_utf8(page(format, Answer::Denial(denial), &deny()).body.to_vec()).unwrap()
    }

    #[test]
    fn each_format_speaks_its_own_language() {
        for (format, expected) in [
            (
                Format::Xml,
                "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<error><code>invalid_credential</code><message>Access Denied</message>\
                 <detail>The API key is not valid.</detail></error>\n",
            ),
            (Format::XmlCablecast, "<?xml version=\"1.0\" encoding=\"utf-8\" ?>\nAccess Denied"),
            (
                Format::Json,
                "{\"errors\":[{\"code\":\"invalid_credential\",\"detail\":\"The API key is not valid.\",\"message\":\"Access Denied\"}],\
                 \"links\":null,\"result\":null,\"success\":false}",
            ),
            (
                Format::Problem,
                "{\"code\":\"invalid_credential\",\"detail\":\"The API key is not valid.\",\"status\":401,\"title\":\"Access Denied\",\
                 \"type\":\"about:blank\"}",
            ),
            (Format::Oauth, "{\"error\":\"invalid_token\",\"error_description\":\"The API key is not valid.\"}"),
            (Format::Text, "Access Denied: The API key is not valid.\n"),
        ] {
            assert_eq!(text(format, Denial::UnknownCredential), expected);
            assert_eq!(text(format, Denial::RevokedCredential), expected, "they look alike from outside");
        }
    }

    #[test]
    fn a_key_that_is_used_too_often_hears_it_in_each_format() {
        const DETAIL: &str = "The API key has been used too often; try again later.";
        for (format, expected) in [
            (
                Format::Xml,
                format!(
                    "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<error><code>rate_limited</code>\
                     <message>Too Many Requests</message><detail>{DETAIL}</detail></error>\n"
                ),
            ),
            (Format::XmlCablecast, "<?xml version=\"1.0\" encoding=\"utf-8\" ?>\nToo Many Requests".to_owned()),
            (
                Format::Json,
                format!(
                    "{{\"errors\":[{{\"code\":\"rate_limited\",\"detail\":\"{DETAIL}\",\"message\":\"Too Many Requests\"}}],\
                     \"links\":null,\"result\":null,\"success\":false}}"
                ),
            ),
            (
                Format::Problem,
                format!(
                    "{{\"code\":\"rate_limited\",\"detail\":\"{DETAIL}\",\"status\":429,\"title\":\"Too Many Requests\",\
                     \"type\":\"about:blank\"}}"
                ),
            ),
            (Format::Oauth, format!("{{\"error\":\"temporarily_unavailable\",\"error_description\":\"{DETAIL}\"}}")),
            (Format::Text, format!("Too Many Requests: {DETAIL}\n")),
        ] {
            assert_eq!(text(format, Denial::RateLimited), expected);
        }
    }

    #[test]
    fn grpc_has_it_in_the_headers() {
        for (answer, expected) in [
            (Answer::Denial(Denial::MissingCredential), "16 This request needs an API key."),
            (Answer::Denial(Denial::RevokedCredential), "16 The API key is not valid."),
            (Answer::Denial(Denial::ReadOnlyKey), "7 The API key may only read."),
            (Answer::Denial(Denial::RateLimited), "8 The API key has been used too often; try again later."),
            (Answer::Denial(Denial::ReplicaExpired), "14 API keys cannot be checked at the moment; try again shortly."),
            (
                Answer::Denial(Denial::AmbiguousPath),
                "3 The path can be read in more than one way; send it in its plain form.",
            ),
            (Answer::Failure(Failure::MethodRefused), "12 Requests with this method are not forwarded."),
            (Answer::Failure(Failure::ClientTimeout), "4 The request was not sent in time."),
            (Answer::Failure(Failure::Timeout), "4 The server behind did not answer in time."),
        ] {
            let page = page(Format::Grpc, answer, &deny());
            let grpc = page.grpc.unwrap();
            let told = [grpc.status.to_str().unwrap(), grpc.message.to_str().unwrap()].join(" ");
            assert_eq!((page.status, &*page.body, &*told), (StatusCode::OK, &b""[..], expected));
        }
        let own = Deny { body: Some("go away".to_owned()), ..deny() };
        assert_eq!(page(Format::Grpc, Answer::Denial(Denial::ReadOnlyKey), &own).grpc.unwrap().message, "go away");
    }

    #[test]
    fn b22_b23_cablecast_says_the_same_for_no_key_and_a_wrong_one() {
        assert_eq!(
            text(Format::XmlCablecast, Denial::MissingCredential),
            text(Format::XmlCablecast, Denial::UnknownCredential)
        );
    }

    #[test]
    fn b24_a_route_may_answer_in_exact_words_but_an_outage_stays_one() {
        let body = "< ?xml version=\"1.0\" encoding=\"utf-8\" ?>\nAccess Denied";
        let deny = Deny { status: Some(StatusCode::OK), body: Some(body.to_owned()), ..deny() };
        for denial in [Denial::MissingCredential, Denial::UnknownCredential, Denial::ReadOnlyKey] {
            let page = page(Format::Xml, Answer::Denial(denial), &deny);
            assert_eq!((page.status, &*page.body), (StatusCode::OK, body.as_bytes()));
        }
        for (answer, status) in [
            (Answer::Denial(Denial::ReplicaExpired), 503),
            (Answer::Denial(Denial::AmbiguousPath), 400),
            (Answer::Denial(Denial::RateLimited), 429),
            (Answer::Failure(Failure::Unreachable), 502),
            (Answer::Failure(Failure::Timeout), 504),
            (Answer::Failure(Failure::RequestTimeout), 504),
            (Answer::Failure(Failure::ClientTimeout), 408),
            (Answer::Failure(Failure::Stopping), 503),
        ] {
            let page = page(Format::Xml, answer, &deny);
            assert_eq!(page.status.as_u16(), status);
            assert_ne!(&*page.body, body.as_bytes());
        }
    }

    #[test]
    fn the_client_says_what_it_reads() {
        for (accept, expected) in [
            ("application/json", Some(Format::Json)),
            ("application/xml", Some(Format::Xml)),
            ("text/xml;q=0.5, application/json;q=0.4", Some(Format::Xml)),
            ("text/xml;q=0.4, application/json; q=0.5", Some(Format::Json)),
            ("application/json;q=0, text/plain", Some(Format::Text)),
            ("application/problem+json, application/json", Some(Format::Problem)),
            ("application/vnd.api+json", Some(Format::Json)),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Some(Format::Xml)),
            ("*/*", None),
            ("text/html", None),
            ("", None),
            (",;q=,application/", None),
        ] {
            assert_eq!(format_of_accept(accept), expected, "{accept}");
        }
        for (path, expected) in [
            ("/a.xml", Some(Format::Xml)),
            ("/status.xsl", Some(Format::Xml)),
            ("/a/b.json", Some(Format::Json)),
            ("/a.xml/b", None),
            ("/xml", None),
            ("/", None),
        ] {
            assert_eq!(format_of_ending(path), expected, "{path}");
        }
        assert_eq!(format_of_media_type("Application/JSON; charset=utf-8"), Some(Format::Json));
        assert_eq!(format_of_media_type("application/x-www-form-urlencoded"), None);
    }

    #[test]
    fn a_challenge_for_each_form_that_is_on() {
        let header = Some(http::HeaderName::from_static("x-api-key"));
        let on =
            Forms { organization: true, bearer: true, basic: true, bare: true, header, query: Some("a\"b\\".into()) };
        assert_eq!(
            challenges(&on),
            [
                "Basic realm=\"keyward\"",
                "Bearer realm=\"keyward\", ApiKey realm=\"keyward\", header=\"x-api-key\", query=\"a\\\"b\\\\\""
            ]
        );
        let basic = Forms { organization: false, bearer: false, basic: true, bare: false, header: None, query: None };
        assert_eq!(challenges(&basic).len(), 1);
        assert!(challenges(&Forms { basic: false, ..basic }).is_empty());
    }

    #[test]
    fn markup_in_xml_is_escaped() {
        assert_eq!(escape_xml("<a&b>"), "&lt;a&amp;b&gt;");
    }
}
