//! The fields of a row: under the columns of a header row, or named by a JSON object.
//!
//! No message repeats what is in a field. Not even a header is always repeated: the first row of a file without one has
//! somebody's key in it.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::row::Reason;
use crate::auth::digest::parse_hex;
use crate::auth::key::KeyFormat;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Value,
    Sha256,
    Id,
    Name,
    Access,
    Ips,
    Scope,
    Env,
    Expires,
    User,
    RateLimit,
    /// In files of rejected rows: where the row was.
    Line,
    /// In files of rejected rows: why it is there.
    Reason,
    /// In files of rejected rows: what could not be read.
    Text,
}

impl Column {
    const ALL: [Self; 14] = [
        Self::Value,
        Self::Sha256,
        Self::Id,
        Self::Name,
        Self::Access,
        Self::Ips,
        Self::Scope,
        Self::Env,
        Self::Expires,
        Self::User,
        Self::RateLimit,
        Self::Line,
        Self::Reason,
        Self::Text,
    ];
    const NAMES: &str = "value, sha256, id, name, access, ips, scope, env, expires, user, rate_limit";

    const fn label(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Sha256 => "sha256",
            Self::Id => "id",
            Self::Name => "name",
            Self::Access => "access",
            Self::Ips => "ips",
            Self::Scope => "scope",
            Self::Env => "env",
            Self::Expires => "expires",
            Self::User => "user",
            Self::RateLimit => "rate_limit",
            Self::Line => "line",
            Self::Reason => "reason",
            Self::Text => "text",
        }
    }

    /// Whether it says something about a key.
    const fn is_read(self) -> bool {
        !matches!(self, Self::Line | Self::Reason | Self::Text)
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.label().eq_ignore_ascii_case(name))
    }
}

/// A text that is borrowed from its row wherever it stands there as it is. It may be a value, so it does not print.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Text<'r>(#[serde(borrow)] pub(super) Cow<'r, str>);

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Text")
    }
}

/// Networks, as one text between commas or as a list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Texts<'r> {
    /// Between commas.
    One(#[serde(borrow)] Text<'r>),
    /// One by one.
    Many(#[serde(borrow)] Vec<Text<'r>>),
}

/// The fields of one row, not read yet.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Fields<'r> {
    /// The value that clients present.
    #[serde(borrow)]
    pub(super) value: Option<Text<'r>>,
    /// Its SHA-256 in hex, where the value itself is not known.
    #[serde(borrow)]
    pub(super) sha256: Option<Text<'r>>,
    /// The key's id.
    #[serde(borrow)]
    pub(super) id: Option<Text<'r>>,
    /// The key's name.
    #[serde(borrow)]
    pub(super) name: Option<Text<'r>>,
    /// What it may do.
    #[serde(borrow)]
    pub(super) access: Option<Text<'r>>,
    /// Where it may be used from.
    #[serde(borrow)]
    pub(super) ips: Option<Texts<'r>>,
    /// Where it acts.
    #[serde(borrow)]
    pub(super) scope: Option<Text<'r>>,
    /// Its world.
    #[serde(borrow)]
    pub(super) env: Option<Text<'r>>,
    /// When it ends.
    #[serde(borrow)]
    pub(super) expires: Option<Text<'r>>,
    /// Who it was handed to.
    #[serde(borrow)]
    pub(super) user: Option<Text<'r>>,
    /// How often it may be used.
    #[serde(borrow)]
    pub(super) rate_limit: Option<Text<'r>>,
    line: Option<IgnoredAny>,
    reason: Option<IgnoredAny>,
    text: Option<IgnoredAny>,
}

impl<'r> Fields<'r> {
    /// Reads a row that is a JSON object.
    pub(super) fn of_object(row: &'r [u8], keys: &KeyFormat) -> Result<Self, Reason> {
        // A list would be taken for the fields in their order.
        let is_object = row.trim_ascii_start().starts_with(b"{");
        let fields = is_object.then(|| serde_json::from_slice(row).ok()).flatten();
        fields.ok_or_else(|| match object(row, keys) {
            Err(reason) => reason,
            Ok(object) => wrong_type(&object),
        })
    }

    fn set(&mut self, column: Column, field: Cow<'r, str>) {
        let text = Some(Text(field));
        match column {
            Column::Value => self.value = text,
            Column::Sha256 => self.sha256 = text,
            Column::Id => self.id = text,
            Column::Name => self.name = text,
            Column::Access => self.access = text,
            Column::Ips => self.ips = text.map(Texts::One),
            Column::Scope => self.scope = text,
            Column::Env => self.env = text,
            Column::Expires => self.expires = text,
            Column::User => self.user = text,
            Column::RateLimit => self.rate_limit = text,
            Column::Line | Column::Reason | Column::Text => {}
        }
    }
}

/// Reads a JSON object whose fields are all known, whatever is in them. The parser's own messages would quote what they
/// do not like.
pub(super) fn object(row: &[u8], keys: &KeyFormat) -> Result<Map<String, Value>, Reason> {
    let object: Map<String, Value> =
        serde_json::from_slice(row).map_err(|_| Reason::from("it is no JSON object on one line"))?;
    let is_known = |name: &str| Column::ALL.into_iter().any(|column| column.label() == name);
    let unknown = object.keys().enumerate().filter(|(_, name)| !is_known(name));
    let unknown: Vec<String> = unknown.map(|(i, name)| named(i, name, keys)).collect();
    if unknown.is_empty() { Ok(object) } else { Err(unknown_columns(&unknown)) }
}

fn wrong_type(object: &Map<String, Value>) -> Reason {
    let is_text = |value: &Value| value.is_string() || value.is_null();
    let is_list = |value: &Value| value.as_array().is_some_and(|items| items.iter().all(Value::is_string));
    let is_right = |name: &str, value: &Value| match Column::parse(name) {
        Some(Column::Ips) => is_text(value) || is_list(value),
        Some(column) => !column.is_read() || is_text(value),
        None => false,
    };
    match object.iter().find(|(name, value)| !is_right(name, value)) {
        Some((name, _)) => Reason::from(format!("`{name}` must be a text")),
        None => Reason::from("a field is in it twice"),
    }
}

/// What is in each column of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns(Vec<Column>);

impl Columns {
    /// Reads a header row.
    pub fn of_header(header: &[u8], delimiter: u8, keys: &KeyFormat) -> Result<Self, Reason> {
        let (mut columns, mut unknown) = (Vec::new(), Vec::new());
        split(text(header)?, delimiter, |i, name| match Column::parse(&name) {
            Some(column) => columns.push(column),
            None => unknown.push(named(i, &name, keys)),
        })?;
        if columns.is_empty() {
            return Err(Reason::from(format!("it must name the columns, which are {}", Column::NAMES)));
        }
        if !unknown.is_empty() {
            return Err(unknown_columns(&unknown));
        }
        let is_twice = |i: &usize| columns[*i].is_read() && columns[..*i].contains(&columns[*i]);
        if let Some(i) = (1..columns.len()).find(is_twice) {
            return Err(Reason::from(format!("column `{}` is there twice", columns[i].label())));
        }
        if !columns.contains(&Column::Value) && !columns.contains(&Column::Sha256) {
            return Err(Reason::from("there is no column `value` and no column `sha256`"));
        }
        Ok(Self(columns))
    }

    /// Whether the file is one of rejected rows, as we write them.
    pub fn are_of_rejected_rows(&self) -> bool {
        self.0.starts_with(&[Column::Line, Column::Reason])
    }

    /// Reads a row under these columns.
    pub(super) fn fields<'r>(&self, row: &'r [u8], delimiter: u8) -> Result<Fields<'r>, Reason> {
        let mut fields = Fields::default();
        let count = split(text(row)?, delimiter, |i, field| {
            if let Some(column) = self.0.get(i) {
                fields.set(*column, field);
            }
        })?;
        if count == self.0.len() {
            return Ok(fields);
        }
        Err(Reason::from(format!("the header has {} columns and it has {count}", self.0.len())))
    }
}

fn text(row: &[u8]) -> Result<&str, Reason> {
    str::from_utf8(row).map_err(|_| Reason::from("it is not UTF-8"))
}

/// How an unknown column is called in a message: by its name if it can be nothing but a name.
fn named(index: usize, name: &str, keys: &KeyFormat) -> String {
    let is_word = name.len() <= 30 && name.bytes().all(|b| b.is_ascii_alphabetic() || b"_- ".contains(&b));
    let is_secret = keys.bears_brand(name.as_bytes()) || keys.parse(name.as_bytes()).is_some();
    let is_hash = parse_hex::<32>(name).is_some();
    if is_word && !is_secret && !is_hash { format!("`{name}`") } else { format!("number {}", index + 1) }
}

fn unknown_columns(names: &[String]) -> Reason {
    Reason::from(format!("unknown columns: {}; known are {}", names.join(", "), Column::NAMES))
}

/// Takes a line apart at its delimiters and says how many fields it has. A field may stand in quotes, and a quote in it
/// is doubled.
fn split<'r>(row: &'r str, delimiter: u8, mut each: impl FnMut(usize, Cow<'r, str>)) -> Result<usize, Reason> {
    let delimiter = char::from(delimiter);
    let (mut rest, mut count) = (row, 0);
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let (field, after) = rest.split_at(rest.find(delimiter).unwrap_or(rest.len()));
                (Cow::Borrowed(field.trim()), after)
            }
        };
        each(count, field);
        count += 1;
        match after.strip_prefix(delimiter) {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(count),
            None => return Err(Reason::from("a quote inside a quoted field must be doubled")),
        }
    }
}

/// What comes after the first `count` fields of a row, if it has that many.
pub fn after_fields(row: &[u8], count: usize, delimiter: u8) -> Option<&[u8]> {
    let mut rest = str::from_utf8(row).ok()?;
    for _ in 0..count {
        let after = match rest.strip_prefix('"') {
            Some(quoted) => unquoted(quoted).ok()?.1,
            None => &rest[rest.find(char::from(delimiter))?..],
        };
        rest = after.strip_prefix(char::from(delimiter))?;
    }
    Some(rest.as_bytes())
}

/// A field up to its closing quote, and what comes after that.
fn unquoted(text: &str) -> Result<(Cow<'_, str>, &str), Reason> {
    let mut end = 0;
    loop {
        end += text[end..].find('"').ok_or(Reason::from("a quote is not closed; a row is one line"))?;
        if !text[end + 1..].starts_with('"') {
            break;
        }
        end += 2;
    }
    let field = &text[..end];
    let field = if field.contains('"') { Cow::Owned(field.replace("\"\"", "\"")) } else { Cow::Borrowed(field) };
    Ok((field, &text[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manage::testing::locksmith;

    #[test]
    fn a_line_is_taken_apart_at_its_delimiters() {
        for (line, delimiter, expected) in [
            ("a,b,c", b',', Ok(vec!["a", "b", "c"])),
            (" a , b ", b',', Ok(vec!["a", "b"])),
            ("a,,", b',', Ok(vec!["a", "", ""])),
            ("\"a,b\",c", b',', Ok(vec!["a,b", "c"])),
            ("\"say \"\"hi\"\"\"", b',', Ok(vec!["say \"hi\""])),
            ("\"\",x", b',', Ok(vec!["", "x"])),
            ("a\tb,c", b'\t', Ok(vec!["a", "b,c"])),
            ("a\"b,c", b',', Ok(vec!["a\"b", "c"])),
            ("\"a", b',', Err("a quote is not closed; a row is one line")),
            ("\"a\"\"", b',', Err("a quote is not closed; a row is one line")),
            ("\"a\"b,c", b',', Err("a quote inside a quoted field must be doubled")),
        ] {
            let mut fields = Vec::new();
            let count = split(line, delimiter, |_, field| fields.push(field.into_owned()));
            assert_eq!(count, expected.as_ref().map(Vec::len).map_err(|why| Reason::from(*why)), "{line}");
            assert!(expected.is_err() || expected.is_ok_and(|expected| expected == fields), "{line}");
        }
    }

    #[test]
    fn a_header_names_known_columns_once() {
        for (header, message) in [
            ("value,id,name", None),
            ("Value,ID", None),
            ("line,reason,value", None),
            ("value,ip", Some("unknown columns: `ip`; known are value, sha256, id")),
            ("value,quota 1", Some("unknown columns: number 2;")),
            ("value,id,value", Some("column `value` is there twice")),
            ("id,name", Some("there is no column `value` and no column `sha256`")),
            ("value;id", Some("it must name the columns, which are value")),
            // The first row of a file without a header.
            ("kw_live_000000000000000000000000000000000032gtfw,k1", Some("it must name the columns")),
            ("7e14204fcce1e00152b4,name", Some("unknown columns: number 1;")),
            ("deadbeefdeadbeefdead,name", Some("unknown columns: number 1;")),
        ] {
            let columns = Columns::of_header(header.as_bytes(), b',', &locksmith().format);
            match (columns, message) {
                (Ok(_), None) => {}
                (Err(reason), Some(message)) => assert!(reason.to_string().starts_with(message), "{reason}"),
                (columns, _) => panic!("{header}: {columns:?}"),
            }
        }
    }

    #[test]
    fn a_row_has_the_fields_of_its_header() {
        let columns = Columns::of_header(b"value,ips,line", b',', &locksmith().format).unwrap();
        let text = |text| Some(Text(Cow::Borrowed(text)));
        let fields = columns.fields(b"abc,\"10.0.0.0/8,::1\",17", b',').unwrap();
        let expected = Fields { value: text("abc"), ips: text("10.0.0.0/8,::1").map(Texts::One), ..Fields::default() };
        assert_eq!(fields, expected);
        for (row, message) in [
            (&b"abc"[..], "the header has 3 columns and it has 1"),
            (b"a,b,c,d", "the header has 3 columns and it has 4"),
            (b"a,\xff,c", "it is not UTF-8"),
        ] {
            assert_eq!(columns.fields(row, b',').unwrap_err(), Reason::from(message));
        }
    }

    #[test]
    fn an_object_has_known_fields_that_are_texts() {
        for (row, message) in [
            (r#"{"value":"a","ips":["::1"],"line":3,"reason":"x"}"#, None),
            (r#"{"value":"a","ips":"::1","name":null}"#, None),
            (r#"{"value":"a","id":17}"#, Some("`id` must be a text")),
            (r#"{"value":"a","ips":[17]}"#, Some("`ips` must be a text")),
            (r#"{"value":"a","value":"b"}"#, Some("a field is in it twice")),
            (r#"{"value":"a","ip":"::1"}"#, Some("unknown columns: `ip`;")),
            (r#"{"7e14204fcce1e00152b4":"a"}"#, Some("unknown columns: number 1;")),
            (r#"{"value":"a""#, Some("it is no JSON object on one line")),
            (r#"["a"]"#, Some("it is no JSON object on one line")),
            ("value,id", Some("it is no JSON object on one line")),
        ] {
            match (Fields::of_object(row.as_bytes(), &locksmith().format), message) {
                (Ok(_), None) => {}
                (Err(reason), Some(message)) => assert!(reason.to_string().starts_with(message), "{reason}"),
                (fields, _) => panic!("{row}: {fields:?}"),
            }
        }
    }
}
