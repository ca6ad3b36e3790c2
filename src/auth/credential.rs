//! Finds what a request presents: in which form, where it stands, and its bytes.
//!
//! Exactly one credential counts. A form that is off is no credential: an upstream may have a Basic password or a key
//! header of its own, and those pass untouched.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{AUTHORIZATION, HeaderName, REFERER};
use http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use super::decision::Denial;
use super::key::KeyFormat;
use super::query;
use super::scope::Level;

/// How a credential was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `Authorization: APIKEY:ORGANIZATION <key>` (C6); the word names a level of the scope tree.
    Organization(Level),
    /// `Authorization: Bearer <key>` (V4), the scheme in any letter case.
    Bearer,
    /// `Authorization: Basic base64(<key>:)`.
    Basic,
    /// `Authorization: <key>`.
    Bare,
    /// `X-API-Key: <key>`.
    Header,
    /// `?api_key=<key>` (B16).
    Query,
}

impl Form {
    /// As in logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Organization(_) => "organization",
            Self::Bearer => "bearer",
            Self::Basic => "basic",
            Self::Bare => "bare",
            Self::Header => "header",
            Self::Query => "query",
        }
    }
}

/// The forms that are on, for the whole deployment or for one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forms {
    /// `Authorization: APIKEY:ORGANIZATION <key>`.
    pub organization: bool,
    /// `Authorization: Bearer <key>`.
    pub bearer: bool,
    /// `Authorization: Basic base64(<key>:)`.
    pub basic: bool,
    /// The key as the whole value of `Authorization`.
    pub bare: bool,
    /// A header of its own.
    pub header: Option<HeaderName>,
    /// A query parameter.
    pub query: Option<Box<str>>,
}

/// Where a credential stands, so that it can be removed and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The nth line of `Authorization`.
    Authorization(usize),
    /// The nth line of the key header.
    Header(usize),
    /// A range of the query.
    Query(Range<usize>),
}

/// The bytes of a credential, wiped when they are a copy.
enum Value<'r> {
    Borrowed(&'r [u8]),
    Owned(Zeroizing<Vec<u8>>),
}

/// One credential of a request.
pub struct Presentation<'r> {
    /// Its form.
    pub form: Form,
    /// Its place.
    pub place: Place,
    value: Value<'r>,
    /// Whether the form's own rules hold: its spaces, its word, its encoding.
    well_formed: bool,
}

impl<'r> Presentation<'r> {
    fn new(form: Form, place: Place, value: &'r [u8]) -> Self {
        Self { form, place, value: Value::Borrowed(value), well_formed: true }
    }

    /// The presented key, `None` where the form's own rules are broken.
    pub fn secret(&self) -> Option<&[u8]> {
        self.well_formed.then_some(self.bytes())
    }

    /// The bytes where a key would be, rules or not.
    pub fn bytes(&self) -> &[u8] {
        match &self.value {
            Value::Borrowed(bytes) => bytes,
            Value::Owned(bytes) => bytes,
        }
    }
}

/// What a request presents, in the forms that are on. Nearly always one, so that one needs no allocation.
#[derive(Default)]
pub struct Presented<'r> {
    first: Option<Presentation<'r>>,
    more: Vec<Presentation<'r>>,
    /// `Authorization` lines that are no credential of ours.
    foreign_lines: usize,
    /// Credential parameters without a value: nothing is presented, but the name is ours and goes no further.
    empty: Vec<Range<usize>>,
}

impl<'r> Presented<'r> {
    /// Looks through the headers and the query. Empty values count as none.
    pub fn find(headers: &'r HeaderMap, query: Option<&'r str>, forms: &Forms, format: &KeyFormat) -> Self {
        let mut presented = Self::default();
        for (line, value) in headers.get_all(AUTHORIZATION).iter().enumerate() {
            presented.authorization(line, value.as_bytes().trim_ascii(), forms, format);
        }
        if let Some(name) = &forms.header {
            for (line, value) in headers.get_all(name).iter().enumerate().filter(|(_, value)| !value.is_empty()) {
                presented.push(Presentation::new(Form::Header, Place::Header(line), value.as_bytes()));
            }
        }
        if let (Some(query), Some(name)) = (query, &forms.query) {
            presented.query(query, name);
        }
        presented
    }

    /// The one credential.
    ///
    /// # Errors
    /// [`Denial::MissingCredential`] for none. [`Denial::AmbiguousCredential`] for two or more, even equal ones: which of
    /// them would count elsewhere cannot be known. A second `Authorization` line makes the first one ambiguous too.
    pub fn exactly_one(self) -> Result<Presentation<'r>, Denial> {
        let presentation = self.first.ok_or(Denial::MissingCredential)?;
        let in_authorization = matches!(presentation.place, Place::Authorization(_));
        if self.more.is_empty() && (self.foreign_lines == 0 || !in_authorization) {
            Ok(presentation)
        } else {
            Err(Denial::AmbiguousCredential)
        }
    }

    /// The empty parameters of a credential's name.
    pub fn empty_parameters(&mut self) -> Vec<Range<usize>> {
        std::mem::take(&mut self.empty)
    }

    /// Every credential, for routes on which none is judged.
    pub fn into_all(self) -> impl Iterator<Item = Presentation<'r>> {
        self.first.into_iter().chain(self.more)
    }

    fn push(&mut self, presentation: Presentation<'r>) {
        if self.first.is_none() {
            self.first = Some(presentation);
        } else {
            self.more.push(presentation);
        }
    }

    fn authorization(&mut self, line: usize, value: &'r [u8], forms: &Forms, format: &KeyFormat) {
        if value.is_empty() {
            return;
        }
        match in_authorization(line, value, forms, format) {
            Some(presentation) => self.push(presentation),
            None => self.foreign_lines += 1,
        }
    }

    fn query(&mut self, query: &'r str, name: &str) {
        for parameter in query::parameters(query, name) {
            let value = &query[parameter.value];
            if value.is_empty() {
                self.empty.push(parameter.whole);
                continue;
            }
            let mut presentation = Presentation::new(Form::Query, Place::Query(parameter.whole), value.as_bytes());
            if let Some(decoded) = query::decoded_value(value) {
                presentation.value = Value::Owned(decoded);
            }
            self.push(presentation);
        }
    }
}

/// The lines of `Referer` without the credentials in their queries; `None` if there is none. A browser tells each server
/// where it found a link, and servers write that into their logs (B29). A line that cannot be read as text is left out.
pub fn cleaned_referer(
    headers: &HeaderMap,
    forms: &Forms,
    is_ours: impl Fn(&[u8]) -> bool,
) -> Option<Vec<HeaderValue>> {
    let name = forms.query.as_ref().filter(|_| headers.contains_key(REFERER))?;
    let (mut lines, mut changed) = (Vec::new(), false);
    for line in headers.get_all(REFERER) {
        let Ok(text) = std::str::from_utf8(line.as_bytes()) else {
            changed = true;
            continue;
        };
        let cleaned = without_credential(text, name, &is_ours).map(|text| HeaderValue::from_bytes(text.as_bytes()));
        changed |= cleaned.is_some();
        lines.extend(cleaned.unwrap_or_else(|| Ok(line.clone())));
    }
    changed.then_some(lines)
}

/// An address without those parameters of that name that are ours.
fn without_credential(address: &str, name: &str, is_ours: impl Fn(&[u8]) -> bool) -> Option<String> {
    let (page, query) = address.split_once('?')?;
    let ours = query::parameters(query, name).filter(|parameter| {
        let value = &query[parameter.value.clone()];
        is_ours(query::decoded_value(value).as_deref().map_or(value.as_bytes(), Vec::as_slice))
    });
    let cuts: Vec<Range<usize>> = ours.map(|parameter| parameter.whole).collect();
    let rest = query::without(query, &cuts);
    let mark = if rest.is_empty() { "" } else { "?" };
    (!cuts.is_empty()).then(|| format!("{page}{mark}{rest}"))
}

/// Reads one non-empty value of `Authorization`; `None` if it is none of the forms that are on.
fn in_authorization<'r>(line: usize, value: &'r [u8], forms: &Forms, format: &KeyFormat) -> Option<Presentation<'r>> {
    let place = Place::Authorization(line);
    if let Some(rest) = value.strip_prefix(b"APIKEY:").filter(|_| forms.organization) {
        return Some(organization(place, rest));
    }
    let (scheme, rest) = value.split_at(value.iter().position(|b| *b == b' ').unwrap_or(value.len()));
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return forms.bearer.then(|| Presentation::new(Form::Bearer, place, rest.trim_ascii_start()));
    }
    if scheme.eq_ignore_ascii_case(b"basic") {
        return forms.basic.then(|| basic(place, rest.trim_ascii_start(), format)).flatten();
    }
    (forms.bare && rest.is_empty()).then(|| Presentation::new(Form::Bare, place, value))
}

/// `ORGANIZATION <key>`: a known word, one space, the key (C6, C7, C25).
fn organization(place: Place, rest: &[u8]) -> Presentation<'_> {
    if let Some(key) = rest.strip_prefix(b"ORGANIZATION ") {
        return Presentation::new(Form::Organization(Level::Organization), place, key);
    }
    let (word, key) = rest.split_at(rest.iter().position(|b| *b == b' ').unwrap_or(rest.len()));
    let level = Level::from_word(word);
    let key = key.strip_prefix(b" ");
    let form = Form::Organization(level.unwrap_or(Level::Organization));
    let well_formed = level.is_some() && key.is_some();
    Presentation { well_formed, ..Presentation::new(form, place, key.unwrap_or_default()) }
}

/// `base64(<key>:)`. With a password it is the upstream's own, unless the user name is a key of ours: then it is one
/// that breaks the form's rules.
fn basic<'r>(place: Place, encoded: &[u8], format: &KeyFormat) -> Option<Presentation<'r>> {
    let decoded = Zeroizing::new(BASE64.decode(encoded).ok()?);
    let colon = decoded.iter().position(|b| *b == b':')?;
    let (user, password) = (&decoded[..colon], &decoded[colon + 1..]);
    let ours = format.bears_brand(user) || format.parse(user).is_some();
    if user.is_empty() || (!password.is_empty() && !ours) {
        return None;
    }
    let well_formed = password.is_empty();
    let value = Value::Owned(Zeroizing::new(user.to_vec()));
    Some(Presentation { form: Form::Basic, place, value, well_formed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::key::{Alphabet, Brand, Shape};

    const KEY: &str = "7e14204fcce1e00152b4";

    fn all_forms() -> Forms {
        Forms {
            organization: true,
            bearer: true,
            basic: true,
            bare: true,
            header: Some(HeaderName::from_static("x-api-key")),
            query: Some("api_key".into()),
        }
    }

    /// What a request presents: `form key`, `form !` where the form's rules are broken, or the denial's label.
    fn presented(forms: &Forms, lines: &[(&str, &str)], query: Option<&str>) -> String {
        let shape = Shape { name: "cablecast".into(), length: 20, alphabet: Alphabet::Hex };
        let format = KeyFormat::new(Brand::parse("kw").unwrap(), vec![shape]);
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        match Presented::find(&headers, query, forms, &format).exactly_one() {
            Ok(p) => format!("{} {}", p.form.label(), p.secret().map_or("!".into(), String::from_utf8_lossy)),
            Err(denial) => denial.label().to_owned(),
        }
    }

    #[track_caller]
    fn check(authorization: &str, expected: &str) {
        let expected = expected.replace('@', KEY);
        let line = authorization.replace('@', KEY);
        assert_eq!(presented(&all_forms(), &[("authorization", &line)], None), expected, "{line}");
    }

    #[test]
    fn c6_c7_c25_reads_every_form_of_authorization() {
        check("APIKEY:ORGANIZATION @", "organization @");
        check("APIKEY:PROJECT @", "organization @");
        check("APIKEY:ORGANIZATION@", "organization !");
        check("APIKEY:ORGANIZATION  @", "organization  @");
        check("APIKEY:TEAM @", "organization !");
        check("APIKEY: @", "organization !");
        check("APIKEY:ORGANIZATION", "organization !");
        check("Bearer @", "bearer @");
        check("bearer @", "bearer @");
        check("BEARER   @", "bearer @");
        check("Bearer @,", "bearer @,");
        check("Bearer", "bearer ");
        check(&format!("Basic {}", BASE64.encode(format!("{KEY}:"))), "basic @");
        check(&format!("basic {}", BASE64.encode(format!("{KEY}:secret"))), "basic !");
        check(&format!("Basic {}", BASE64.encode("admin:hackme")), "missing_credential");
        check(&format!("Basic {}", BASE64.encode("kw_live_x:y")), "basic !");
        check("Basic ???", "missing_credential");
        check("@", "bare @");
        check("Digest username=\"@\"", "missing_credential");
        check("", "missing_credential");
        check("   ", "missing_credential");
    }

    #[test]
    fn exactly_one_credential_counts() {
        let (bearer, foreign) = (format!("Bearer {KEY}"), "Digest x=1");
        let query = format!("api_key={KEY}");
        for (lines, query, expected) in [
            (&[][..], None, "missing_credential"),
            (&[("x-api-key", KEY)], None, "header @"),
            (&[("x-api-key", "")], None, "missing_credential"),
            (&[], Some(&*query), "query @"),
            (&[], Some("api_key=%37e14204fcce1e00152b4"), "query @"),
            (&[], Some("api_key="), "missing_credential"),
            (&[("authorization", &bearer), ("authorization", &bearer)], None, "ambiguous_credential"),
            (&[("authorization", &bearer), ("authorization", foreign)], None, "ambiguous_credential"),
            (&[("authorization", foreign), ("authorization", &bearer)], None, "ambiguous_credential"),
            (&[("authorization", ""), ("authorization", &bearer)], None, "bearer @"),
            (&[("authorization", foreign), ("x-api-key", KEY)], None, "header @"),
            (&[("authorization", &bearer), ("x-api-key", KEY)], None, "ambiguous_credential"),
            (&[("authorization", &bearer)], Some(&*query), "ambiguous_credential"),
            (&[("authorization", &bearer)], Some("api_key=wrong"), "ambiguous_credential"),
            (&[("authorization", &bearer)], Some("api_key="), "bearer @"),
            (&[("x-api-key", KEY), ("x-api-key", KEY)], None, "ambiguous_credential"),
            (&[], Some("api_key=1&api%5fkey=1"), "ambiguous_credential"),
        ] {
            assert_eq!(presented(&all_forms(), lines, query), expected.replace('@', KEY), "{lines:?} {query:?}");
        }
    }

    #[test]
    fn b29_every_line_of_referer_is_cleaned() {
        let cleaned = |lines: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(REFERER, HeaderValue::from_bytes(line).unwrap());
            }
            let lines = cleaned_referer(&headers, &all_forms(), |value| value != b"theirs")?;
            Some(lines.iter().map(|line| String::from_utf8(line.as_bytes().to_vec()).unwrap()).collect::<Vec<_>>())
        };
        for (lines, expected) in [
            (&["http://a/?api_key=K".as_bytes()][..], Some(&["http://a/"][..])),
            (&["http://a/ä?x=1&api_key=K&ö".as_bytes()], Some(&["http://a/ä?x=1&ö"])),
            (&[b"http://a/", b"http://b/?api%5fkey=K"], Some(&["http://a/", "http://b/"])),
            (&[b"http://a/\xff?api_key=K", b"http://b/"], Some(&["http://b/"])),
            (&[b"http://a/?api_key=theirs&a=%zz"], None),
            (&[b"http://a/?"], None),
            (&[], None),
        ] {
            assert_eq!(
                cleaned(lines).as_deref(),
                expected.map(|e| e.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).as_deref()
            );
        }
    }

    #[test]
    fn a_form_that_is_off_is_no_credential() {
        let off = Forms { organization: false, bearer: false, basic: false, bare: false, header: None, query: None };
        let basic = format!("Basic {}", BASE64.encode(format!("{KEY}:")));
        for line in [&format!("APIKEY:ORGANIZATION {KEY}"), &format!("Bearer {KEY}"), &basic, KEY] {
            let lines = [("authorization", line), ("x-api-key", KEY)];
            assert_eq!(presented(&off, &lines, Some("api_key=x")), "missing_credential", "{line}");
            let query_only = Forms { query: Some("key".into()), ..off.clone() };
            assert_eq!(presented(&query_only, &lines, Some("key=x")), "query x", "{line}");
        }
    }
}
