//! The file of rejected rows: as they were, with the line and the reason before them, so that it can be corrected and
//! imported in its turn. Only its owner can read it, for it is full of values.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::exit::Failure;
use crate::manage::import::{Format, Layout, Rejection, after_fields};

/// A file that is made when the first row is rejected.
pub(super) struct Rejects {
    /// Where it is.
    pub(super) path: PathBuf,
    /// How many rows are in it.
    pub(super) count: u64,
    format: Format,
    layout: Layout,
    file: Option<BufWriter<File>>,
}

impl Rejects {
    /// Rows of an input will be written to `path`, or to a file beside it.
    pub(super) fn of(input: &Path, path: Option<PathBuf>, format: Format, layout: Layout) -> Result<Self, Failure> {
        let beside = || {
            let mut name = OsString::from(input);
            name.push(".rejected");
            PathBuf::from(name)
        };
        let path = path.unwrap_or_else(beside);
        let same = |a: &Path, b: &Path| a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b));
        if same(input, &path) {
            return Err(Failure::Usage(format!("--rejects {} is the input itself", path.display())));
        }
        Ok(Self { path, count: 0, format, layout, file: None })
    }

    /// Adds rows, and sees to it that they are in the file.
    pub(super) fn add(&mut self, rejections: &[Rejection]) -> Result<(), Failure> {
        self.count += rejections.len() as u64;
        self.write(rejections).map_err(|error| {
            let path = self.path.display();
            Failure::Failed(format!(
                "{path}: rows that are rejected cannot be written: {error}; --rejects names another file"
            ))
        })
    }

    fn write(&mut self, rejections: &[Rejection]) -> io::Result<()> {
        if rejections.is_empty() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(begin(&self.path, self.format, &self.layout)?),
        };
        for rejection in rejections {
            match &self.layout {
                Layout::JsonLines => object(rejection, file)?,
                Layout::Table { columns, .. } => {
                    let row = rejection.raw.reveal();
                    let own = if columns.are_of_rejected_rows() { 2 } else { 0 };
                    line(&rejection.line.to_string(), &rejection.reason.to_string(), self.format, file)?;
                    file.write_all(after_fields(row, own, self.format.delimiter()).unwrap_or(row))?;
                    file.write_all(b"\n")?;
                }
            }
        }
        file.flush()
    }
}

/// Makes the file and writes its header.
fn begin(path: &Path, format: Format, layout: &Layout) -> io::Result<BufWriter<File>> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // It may have been there before, for all to read.
    file.set_permissions(Permissions::from_mode(0o600))?;
    let mut file = BufWriter::new(file);
    match layout {
        Layout::JsonLines => {}
        Layout::Table { columns, header } if columns.are_of_rejected_rows() => {
            file.write_all(header)?;
            file.write_all(b"\n")?;
        }
        Layout::Table { header, .. } => {
            line("line", "reason", format, &mut file)?;
            file.write_all(header)?;
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

/// The two first fields of a row in the file.
fn line(line: &str, reason: &str, format: Format, file: &mut impl Write) -> io::Result<()> {
    let delimiter = char::from(format.delimiter());
    if reason.contains(['"', delimiter]) {
        write!(file, "{line}{delimiter}\"{}\"{delimiter}", reason.replace('"', "\"\""))
    } else {
        write!(file, "{line}{delimiter}{reason}{delimiter}")
    }
}

/// A rejected row as a JSON object; what was none becomes a text in one.
fn object(rejection: &Rejection, file: &mut impl Write) -> io::Result<()> {
    let raw = rejection.raw.reveal();
    let mut object = match serde_json::from_slice(raw) {
        Ok(serde_json::Value::Object(object)) => object,
        Ok(_) | Err(_) => [("text".to_owned(), String::from_utf8_lossy(raw).into())].into_iter().collect(),
    };
    object.insert("line".to_owned(), rejection.line.into());
    object.insert("reason".to_owned(), rejection.reason.to_string().into());
    writeln!(file, "{}", json!(object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::locksmith;
    use crate::manage::import::{Columns, Raw, Reason};

    fn table(header: &str, delimiter: u8) -> Layout {
        let columns = Columns::of_header(header.as_bytes(), delimiter, &locksmith().format).unwrap();
        Layout::Table { columns, header: header.as_bytes().to_vec() }
    }

    #[track_caller]
    fn check(format: Format, layout: Layout, rows: &[&str], expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let mut rejects = Rejects::of(&folder.path().join("keys"), None, format, layout).unwrap();
        rejects.add(&[]).unwrap();
        assert!(!rejects.path.exists(), "nothing was rejected yet");
        let reason = Reason::from("it has \"no\" value, and no id");
        for (line, row) in (2..).zip(rows) {
            rejects.add(&[Rejection { line, raw: Raw::new(row.as_bytes()), reason: reason.clone() }]).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&rejects.path).unwrap(), expected);
        assert_eq!(rejects.path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(rejects.path.file_name().unwrap(), "keys.rejected");
    }

    #[test]
    fn rows_are_kept_as_they_are_with_the_reason_before_them() {
        const REASON: &str = "\"it has \"\"no\"\" value, and no id\"";
        check(
            Format::Csv,
            table("value,id", b','),
            &["a,\"b\"", "a,b,c", ""],
            &format!("line,reason,value,id\n2,{REASON},a,\"b\"\n3,{REASON},a,b,c\n4,{REASON},\n"),
        );
        check(
            Format::Tsv,
            table("value\tid", b'\t'),
            &["a\tb"],
            &format!("line\treason\tvalue\tid\n2\t{REASON}\ta\tb\n"),
        );
        // A file of rejected rows, imported again, does not grow columns.
        check(
            Format::Csv,
            table("line,reason,value", b','),
            &["9,\"x, y\",a", "9,x,\"a", "odd"],
            &format!("line,reason,value\n2,{REASON},a\n3,{REASON},\"a\n4,{REASON},odd\n"),
        );
    }

    #[test]
    fn objects_keep_their_fields() {
        let reason = r#""reason":"it has \"no\" value, and no id""#;
        check(
            Format::JsonLines,
            Layout::JsonLines,
            &[r#"{"value":"a","line":9,"reason":"x"}"#, "{\"value\":"],
            &format!(
                "{{\"line\":2,{reason},\"value\":\"a\"}}\n{{\"line\":3,{reason},\"text\":\"{{\\\"value\\\":\"}}\n"
            ),
        );
    }

    #[test]
    fn the_input_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("keys");
        std::fs::write(&input, "value\n").unwrap();
        let odd = folder.path().join(".").join("keys");
        assert!(matches!(Rejects::of(&input, Some(odd), Format::JsonLines, Layout::JsonLines), Err(Failure::Usage(_))));
    }
}
