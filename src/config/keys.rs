//! The `keys` section and the store: all that a command needs to work on keys.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::overrides::Overrides;
use super::place::OptionPath;
use super::raw;
use super::report::Report;
use super::secrecy::{may_be_shown, quoted};
use super::values;
use crate::auth::Locksmith;
use crate::auth::digest::{NotAPepper, Pepper};
use crate::auth::key::{Alphabet, KeyFormat, Shape};

/// A pepper file is 64 digits and a line end; what is much longer is something else and is not read to its end.
const LONGEST_PEPPER_FILE: usize = 4096;

/// How secrets are read and looked up. `None` only where a mistake was reported.
pub(super) fn locksmith(raw: &raw::Keys, base: &Path, overrides: &Overrides, report: &mut Report) -> Option<Locksmith> {
    let at = OptionPath::of(["keys"]);
    let brand = report.take(&at.key("brand"), values::brand(&raw.brand));
    let shapes = shapes(&raw.shapes, &at.key("shapes"), report);
    let pepper = raw.pepper.as_ref().and_then(|raw| pepper(raw, base, overrides, report));
    Some(Locksmith { format: KeyFormat::new(brand?, shapes), pepper: pepper? })
}

fn shapes(raw: &[raw::Shape], at: &OptionPath, report: &mut Report) -> Vec<Shape> {
    let mut shapes: Vec<Shape> = Vec::new();
    for (nth, raw) in raw.iter().enumerate() {
        let here = at.index(nth);
        if let Some(name) = &raw.name {
            report.take(&here.key("name"), values::shape_name(name));
        }
        // What is missing or of a wrong shape was reported before.
        let (Some(name), Some(length), Some(alphabet)) = (&raw.name, raw.length, raw.alphabet) else { continue };
        let shape = Shape {
            name: name.clone(),
            length: usize::try_from(length).unwrap_or(usize::MAX),
            alphabet: alphabet.into(),
        };
        let alike = |other: &&Shape| (other.length, other.alphabet) == (shape.length, shape.alphabet);
        if shapes.iter().any(|known| known.name == shape.name) {
            report.mistake(&here.key("name"), format!("{} is the name of two shapes", quoted(name)));
        } else if let Some(same) = shapes.iter().find(alike) {
            report.mistake(&here, format!("fits the same keys as the shape {}; keep one of them", quoted(&same.name)));
        }
        shapes.push(shape);
    }
    shapes
}

impl From<raw::Alphabet> for Alphabet {
    fn from(raw: raw::Alphabet) -> Self {
        match raw {
            raw::Alphabet::Hex => Self::Hex,
            raw::Alphabet::Base62 => Self::Base62,
            raw::Alphabet::Base64url => Self::Base64Url,
        }
    }
}

fn pepper(raw: &raw::Pepper, base: &Path, overrides: &Overrides, report: &mut Report) -> Option<Pepper> {
    let at = OptionPath::of(["keys", "pepper"]);
    match (&raw.file, &raw.env) {
        (Some(file), None) => pepper_of_file(file, base, &at.key("file"), report),
        (None, Some(name)) => {
            let pepper = pepper_of_variable(name, overrides);
            report.take(&at.key("env"), pepper)
        }
        (Some(_), Some(_)) => {
            report.mistake(&at, "names a file and a variable; keep one of them");
            None
        }
        (None, None) if report.has_mistake_within(&at) => None,
        (None, None) => {
            report.mistake(&at, "names nothing; write `{ file: PATH }` or `{ env: NAME }`");
            None
        }
    }
}

fn pepper_of_variable(name: &str, overrides: &Overrides) -> Result<Pepper, String> {
    let shown =
        if may_be_shown(name) { format!("the environment variable {name}") } else { "that variable".to_owned() };
    let value = overrides.variable(name).ok_or_else(|| format!("{shown} is not set{}", aside(name)))?;
    Pepper::from_hex(value).map_err(|error| format!("the value of {shown} is no pepper: {error}"))
}

fn pepper_of_file(file: &str, base: &Path, at: &OptionPath, report: &mut Report) -> Option<Pepper> {
    let path: PathBuf = base.join(file).components().collect();
    let shown = if may_be_shown(file) { path.display().to_string() } else { "that file".to_owned() };
    let (text, mode) = report.take(at, read_pepper(&path, &shown, file))?;
    if mode & 0o004 != 0 {
        report.warn(at, format!("{shown} can be read by every user of this machine; take that away with chmod 600"));
    }
    report.take(at, Pepper::from_hex(&text).map_err(|error| format!("{shown} holds no pepper: {error}")))
}

/// What to add where something was not found, and the name that was looked for may itself be a secret.
fn aside(name: &str) -> &'static str {
    if may_be_shown(name) {
        ""
    } else {
        ". If that is the pepper itself: it never stands in a config, only its place does"
    }
}

/// What a pepper file holds, and its mode.
fn read_pepper(path: &Path, shown: &str, name: &str) -> Result<(Zeroizing<String>, u32), String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!(
            "{shown} does not exist; `(umask 077; openssl rand -hex 32 > FILE)` makes one for a new store, as `keyward init` \
             does with a new config; a store in use needs the one that its keys were made with{}",
            aside(name)
        ),
        _ => format!("{shown} cannot be read: {error}"),
    };
    // Opening a pipe waits for somebody to write into it.
    if path.metadata().map_err(failed)?.file_type().is_fifo() {
        return Err(format!("{shown} is a pipe; name a file, or a variable: {{ env: NAME }}"));
    }
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    // With all the room it can need, the text is never moved and leaves no copies behind.
    let mut text = Zeroizing::new(String::with_capacity(LONGEST_PEPPER_FILE));
    match file.take(LONGEST_PEPPER_FILE as u64).read_to_string(&mut text) {
        Ok(_) => Ok((text, mode)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(format!("{shown} holds no pepper: {NotAPepper}"))
        }
        Err(error) => Err(failed(error)),
    }
}
