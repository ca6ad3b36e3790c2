//! What tells two processes apart that are called the same: a random part of the name, of which no two that run at once have
//! the same. Whoever waits for both must not take the one for the other.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::store::Location;

/// The part of a process's name that is its own.
pub(super) struct Instance {
    part: String,
    /// Locked as long as this process lives.
    _file: Option<File>,
}

impl Instance {
    /// A part for this run; with a file to keep it in, the same as in the last run, so that one that was killed is not waited
    /// for when it runs again. The file is beside `beside`, and belongs to whoever has its lock.
    fn new(beside: Option<&Path>) -> std::io::Result<Self> {
        let part = format!("{:08x}", getrandom::u32().map_err(std::io::Error::other)?);
        let Some(beside) = beside else { return Ok(Self { part, _file: None }) };
        let mut path = OsString::from(beside);
        path.push("-node");
        // Where nothing can be written, or another one has it, every run is another one.
        Ok(match keep(Path::new(&path), &part) {
            Ok((part, file)) => Self { part, _file: Some(file) },
            Err(_) => Self { part, _file: None },
        })
    }

    /// One that keeps something on a disk keeps also who it is.
    pub(super) fn of(store: &Location, snapshot: Option<&Path>) -> std::io::Result<Self> {
        Self::new(match store {
            Location::Sqlite(path) => Some(path),
            Location::File(_) | Location::Postgres(_) => snapshot,
        })
    }

    /// A name with it.
    pub(super) fn named(&self, name: &str) -> String {
        format!("{name}-{}", self.part)
    }
}

/// The part that the file has, or `new`, which it has from now on.
fn keep(path: &Path, new: &str) -> std::io::Result<(String, File)> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.try_lock()?;
    let mut kept = String::new();
    // What is no part, somebody else has written there, or a power cut.
    let is_read = (&file).take(64).read_to_string(&mut kept).is_ok();
    if is_read && kept.len() == new.len() && kept.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok((kept, file));
    }
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(new.as_bytes())?;
    Ok((new.to_owned(), file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_at_once_are_the_same_and_one_that_comes_again_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyward.db");
        let new = |path| Instance::new(path).unwrap();
        let (first, second) = (new(Some(&path)), new(Some(&path)));
        let parts = [&first, &second, &new(None), &new(Some(Path::new("/proc/nowhere/keyward.db")))];
        let names: std::collections::BTreeSet<String> = parts.iter().map(|instance| instance.named("a")).collect();
        assert_eq!(names.len(), 4, "{names:?}");
        let (name, file) = (first.named("a"), folder.path().join("keyward.db-node"));
        drop(first);
        assert_eq!(new(Some(&path)).named("a"), name);
        std::fs::write(&file, "\u{fffd}").unwrap();
        let anew = new(Some(&path)).named("a");
        assert!(anew != name && new(Some(&path)).named("a") == anew);
    }
}
