//! What is sent along, and what is in a query: read strictly, and all that is wrong with it is told at once.

use std::fmt::{self, Display};
use std::str::FromStr;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::envelope::Trouble;
use crate::auth::query::decoded_value;
use crate::manage::Mistake;

/// The attributes of an object, taken one by one; what is left at the end was not understood.
pub(super) struct Attributes {
    left: Map<String, Value>,
    mistakes: Vec<Mistake>,
}

impl Attributes {
    /// Reads an object.
    ///
    /// # Errors
    /// When it is not called JSON (V21), or is no object.
    pub(super) fn read(headers: &HeaderMap, body: &Bytes) -> Result<Self, Trouble> {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            let why = "send JSON, and say so: Content-Type: application/json";
            return Err(Trouble::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", why));
        }
        match serde_json::from_slice(body) {
            Ok(Sent::Object(left, twice)) => {
                let mut read = Self { left, mistakes: Vec::new() };
                // A name as long as a key may be one.
                twice.iter().for_each(|name| {
                    read.mistake(if name.len() <= 32 { name } else { "?" }, "is given more than once");
                });
                Ok(read)
            }
            Ok(Sent::Other) => Err(Trouble::new(StatusCode::BAD_REQUEST, "invalid_json", "send a JSON object")),
            // serde's own words would quote what was sent.
            Err(error) => {
                let why = format!("this is no JSON from line {}, column {} on", error.line(), error.column());
                Err(Trouble::new(StatusCode::BAD_REQUEST, "invalid_json", why))
            }
        }
    }

    /// Whether there is nothing (left) in it.
    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Notes a mistake.
    pub(super) fn mistake(&mut self, field: &str, why: impl Display) {
        self.mistakes.push(Mistake { field: field.to_owned(), why: why.to_string() });
    }

    /// An attribute that must be there.
    pub(super) fn required<T>(&mut self, field: &str, read: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        if !self.left.contains_key(field) {
            self.mistake(field, "is missing");
        }
        self.optional(field, read)
    }

    /// An attribute that may be absent.
    pub(super) fn optional<T>(&mut self, field: &str, read: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        let value = self.left.remove(field)?;
        match read(&value) {
            Ok(value) => Some(value),
            Err(why) => {
                self.mistake(field, why);
                None
            }
        }
    }

    /// An attribute that may be absent, or `null` to take away what it says.
    pub(super) fn nullable<T>(
        &mut self,
        field: &str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<Option<T>> {
        self.optional(field, |value| if value.is_null() { Ok(None) } else { read(value).map(Some) })
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// With every mistake, attributes that are not understood included: one that is passed over might be a restriction.
    pub(super) fn finish(mut self) -> Result<(), Trouble> {
        for (field, _) in std::mem::take(&mut self.left) {
            // A name as long as a key may be one.
            let shown = if field.len() <= 32 { field } else { "?".to_owned() };
            self.mistake(&shown, "there is no such attribute");
        }
        if self.mistakes.is_empty() { Ok(()) } else { Err(Trouble::invalid(self.mistakes)) }
    }
}

/// What was sent: an object, and which of its names came more than once, of which others might read another one than we.
enum Sent {
    Object(Map<String, Value>, Vec<String>),
    Other,
}

impl<'de> Deserialize<'de> for Sent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SentVisitor)
    }
}

struct SentVisitor;

impl<'de> Visitor<'de> for SentVisitor {
    type Value = Sent;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sent, A::Error> {
        let (mut found, mut twice) = (Map::new(), Vec::new());
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if found.insert(name.clone(), value).is_some() {
                twice.push(name);
            }
        }
        Ok(Sent::Object(found, twice))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Sent, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Sent::Other)
    }

    fn visit_unit<E>(self) -> Result<Sent, E> {
        Ok(Sent::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Sent, E> {
        Ok(Sent::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Sent, E> {
        Ok(Sent::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Sent, E> {
        Ok(Sent::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Sent, E> {
        Ok(Sent::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Sent, E> {
        Ok(Sent::Other)
    }
}

/// Reads a string.
pub(super) fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| "must be a string".to_owned())
}

/// Reads a boolean.
pub(super) fn boolean(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "must be true or false".to_owned())
}

/// Reads a string that stands for something.
pub(super) fn parsed<T: FromStr<Err: Display>>(value: &Value) -> Result<T, String> {
    text(value)?.parse().map_err(|error: T::Err| error.to_string())
}

/// Reads a parameter that is true or false.
pub(super) fn truth(text: &str) -> Result<bool, String> {
    match text {
        "true" | "" => Ok(true),
        "false" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

/// Reads a list of strings that stand for something.
pub(super) fn list<T: FromStr<Err: Display>>(value: &Value) -> Result<Vec<T>, String> {
    let items = value.as_array().ok_or_else(|| "must be a list of strings".to_owned())?;
    items.iter().map(parsed).collect()
}

/// The parameters of a query, taken one by one.
pub(super) struct Query {
    left: Vec<(String, String)>,
    mistakes: Vec<Mistake>,
}

impl Query {
    /// Reads a query; each parameter counts once, and those that are not known are mistakes.
    pub(super) fn read(query: &str, known: &[&str]) -> Self {
        let mut read = Self { left: Vec::new(), mistakes: Vec::new() };
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (decode(name), decode(value));
            if !known.contains(&name.as_str()) {
                // A name as long as a key may be one.
                let shown = if name.len() <= 32 { name } else { "?".to_owned() };
                read.mistake(&shown, "there is no such parameter");
            } else if read.left.iter().any(|(other, _)| *other == name) {
                read.mistake(&name, "is given more than once");
            } else {
                read.left.push((name, value));
            }
        }
        read
    }

    fn mistake(&mut self, field: &str, why: impl Into<String>) {
        self.mistakes.push(Mistake { field: field.to_owned(), why: why.into() });
    }

    /// A parameter.
    pub(super) fn take<T>(&mut self, name: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let at = self.left.iter().position(|(other, _)| other == name)?;
        let (_, value) = self.left.swap_remove(at);
        match read(&value) {
            Ok(value) => Some(value),
            Err(why) => {
                self.mistake(name, why);
                None
            }
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// With every mistake.
    pub(super) fn finish(self) -> Result<(), Trouble> {
        if self.mistakes.is_empty() { Ok(()) } else { Err(Trouble::invalid(self.mistakes)) }
    }
}

/// What a name or a value in a query stands for.
pub(super) fn decode(text: &str) -> String {
    decoded_value(text).map_or_else(|| text.to_owned(), |decoded| String::from_utf8_lossy(&decoded).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(json: &str) -> Result<Attributes, Trouble> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, "Application/JSON; charset=utf-8".parse().unwrap())]);
        Attributes::read(&headers, &Bytes::copy_from_slice(json.as_bytes()))
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let mut read = attributes(r#"{"name": 1, "ips": ["::1", "x"], "quota": 5}"#).unwrap();
        read.required("name", |value| text(value).map(str::to_owned));
        read.required("type", |value| text(value).map(str::to_owned));
        read.optional("ips", list::<crate::manage::values::Net>);
        let body = read.finish().unwrap_err().page().body;
        for said in ["must be a string", "is missing", "is no address", "there is no such attribute", "quota"] {
            assert!(body.contains(said), "{said}: {body}");
        }
    }

    #[test]
    fn an_attribute_is_given_once() {
        let mut read = attributes(r#"{"permissions": ["fetch"], "name": "a", "permissions": []}"#).unwrap();
        assert!(read.optional("name", |value| text(value).map(str::to_owned)).is_some());
        read.optional("permissions", list::<String>);
        let body = read.finish().unwrap_err().page().body;
        assert!(body.contains("is given more than once") && body.contains(r#""field":"permissions""#), "{body}");
    }

    #[test]
    fn what_is_no_object_is_refused_and_not_repeated() {
        for json in ["[]", "[1, {}]", "1", "-1", "1.5", "null", "true", "\"needle\"", "", "{", "{\"kw_live_needle\""] {
            let page = attributes(json).map(|_| ()).unwrap_err().page();
            assert!(page.status == StatusCode::BAD_REQUEST && !page.body.contains("needle"), "{json}");
        }
        let trouble = Attributes::read(&HeaderMap::new(), &Bytes::from_static(b"{}")).map(|_| ()).unwrap_err();
        assert_eq!(trouble.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }

    #[test]
    fn a_query_has_what_is_known_and_each_once() {
        let number = |value: &str| value.parse::<u32>().map_err(|_| "must be a number".to_owned());
        let mut query = Query::read("limit=%32&cursor=a%20b+c", &["limit", "cursor"]);
        assert_eq!(query.take("limit", number), Some(2));
        assert_eq!(query.take("cursor", |value| Ok(value.to_owned())).as_deref(), Some("a b c"));
        assert!(query.finish().is_ok());
        for bad in ["limit=x", "limit=1&limit=1", "page=2"] {
            let mut query = Query::read(bad, &["limit"]);
            query.take("limit", number);
            assert!(query.finish().is_err(), "{bad}");
        }
    }
}
