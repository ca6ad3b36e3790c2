//! Hints that the files may have changed, from the operating system.
//!
//! The folder is watched and not the file: a mount or an editor puts another file in its place, and a watch on the old one
//! would hear nothing any more. Whatever is missed here, the poll finds.

pub mod stamp;

use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use std::{fmt, io};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use self::stamp::{FileId, Stamp};

/// Who writes usually does so in several steps: wait until there was silence for this long…
const SILENCE: Duration = Duration::from_millis(50);

/// …but no longer than this.
const LONGEST: Duration = Duration::from_secs(1);

/// A watch on a folder of files, or on the folder that a file is in.
pub struct Watch {
    path: PathBuf,
    /// How many events there have been.
    events: Arc<watch::Sender<u64>>,
    /// How many there had been when the files were read last.
    read_at: AtomicU64,
    armed: Mutex<Option<Armed>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch").field(&self.path).finish()
    }
}

/// A watch that was set.
struct Armed {
    /// Watches for as long as it lives.
    _watcher: RecommendedWatcher,
    folder: FileId,
    /// The folder was moved or deleted; what is at its path now, if anything, is not watched.
    lost: Arc<AtomicBool>,
}

impl Watch {
    /// A watch that is not set yet.
    pub fn new(path: &Path) -> Self {
        let events = Arc::new(watch::Sender::new(0));
        Self { path: path.to_owned(), events, read_at: AtomicU64::new(0), armed: Mutex::default() }
    }

    /// To be called before the files are read: what changes from now on is news. Sets the watch if it is not set, or was
    /// set on a folder that is gone.
    pub fn about_to_read(&self) {
        // Replacing the watch is one assignment; a panic cannot leave half of it.
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = self.folder();
        let now = Stamp::of(folder).ok().map(|stamp| stamp.id);
        let holds = |armed: &Armed| now == Some(armed.folder) && !armed.lost.load(Ordering::Acquire);
        if !armed.as_ref().is_some_and(holds) {
            *armed = now.and_then(|id| match self.arm(folder, id) {
                Ok(armed) => Some(armed),
                Err(error) => {
                    tracing::debug!(folder = %folder.display(), %error, "the folder is not watched, only polled");
                    None
                }
            });
        }
        self.read_at.store(*self.events.borrow(), Ordering::Release);
    }

    /// Resolves some time after an event since the files were read last.
    pub async fn changed(&self) {
        let mut events = self.events.subscribe();
        let read_at = self.read_at.load(Ordering::Acquire);
        // The sender is a field of this watch: it is there for as long as anybody can wait here.
        let _ = events.wait_for(|count| *count > read_at).await;
        let latest = Instant::now() + LONGEST;
        while let Ok(Ok(())) = timeout(SILENCE, events.changed()).await
            && Instant::now() < latest
        {}
    }

    /// The folder itself, or the one that the file is in.
    fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if parent == Path::new("") && !self.path.is_dir() => Path::new("."),
            Some(parent) if !self.path.is_dir() => parent,
            Some(_) | None => &self.path,
        }
    }

    fn arm(&self, folder: &Path, id: FileId) -> notify::Result<Armed> {
        let lost = Arc::new(AtomicBool::new(false));
        let (events, gone, root) = (Arc::clone(&self.events), Arc::clone(&lost), folder.to_owned());
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.as_ref().is_ok_and(is_only_a_look) {
                return;
            }
            if event.is_ok_and(|event| event.paths.contains(&root)) {
                gone.store(true, Ordering::Release);
            }
            events.send_modify(|count| *count += 1);
        })?;
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(Armed { _watcher: watcher, folder: id, lost })
    }
}

/// Several files whose content is read again whenever there may be news of them.
#[derive(Default)]
pub struct Contents {
    watches: Vec<Watch>,
    /// The hash of what they held when they were looked at last.
    seen: [u8; 32],
}

impl Contents {
    /// These files, which have not been looked at yet.
    pub fn new(paths: &[PathBuf]) -> Self {
        Self { watches: paths.iter().map(|path| Watch::new(path)).collect(), seen: [0; 32] }
    }

    /// Whether these are the files.
    pub fn are_of(&self, paths: &[PathBuf]) -> bool {
        self.watches.iter().map(|watch| &watch.path).eq(paths)
    }

    /// Whether they hold something else than when they were looked at last. What changes from now on is news.
    pub fn look(&mut self) -> bool {
        self.watches.iter().for_each(Watch::about_to_read);
        let now = hash(&self.paths());
        std::mem::replace(&mut self.seen, now) != now
    }

    /// The same on a thread of its own: a disk may take its time.
    async fn look_aside(&mut self) -> bool {
        self.watches.iter().for_each(Watch::about_to_read);
        let paths = self.paths();
        let Ok(now) = spawn_blocking(move || hash(&paths)).await else { return false };
        std::mem::replace(&mut self.seen, now) != now
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.watches.iter().map(|watch| watch.path.clone()).collect()
    }

    /// Resolves when they hold something else than when they were looked at last: soon after a hint from the operating
    /// system, and without one within `interval`.
    pub async fn changed(&mut self, interval: Duration) {
        while !self.look_aside().await {
            let mut hints: Vec<_> = self.watches.iter().map(|watch| Box::pin(watch.changed())).collect();
            let any = poll_fn(|cx| match hints.iter_mut().any(|hint| hint.as_mut().poll(cx).is_ready()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            });
            let _ = timeout(interval, any).await;
        }
    }
}

/// The hash of what files hold.
fn hash(paths: &[PathBuf]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for path in paths {
        // A pipe has been read to its end; it has no news.
        let is_file = path.metadata().is_ok_and(|metadata| metadata.is_file());
        let content = if is_file { std::fs::read(path).ok() } else { None };
        // One that cannot be read is no empty one, and where one ends the other begins.
        hash.update(content.as_ref().map_or(u64::MAX, |content| content.len() as u64).to_le_bytes());
        hash.update(content.map(Zeroizing::new).unwrap_or_default());
    }
    hash.finalize().into()
}

/// Whether an event tells that somebody has read something: we ourselves, for one.
fn is_only_a_look(event: &Event) -> bool {
    matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write))
}

/// Kubernetes never updates a file that is mounted by itself (`subPath`): it never changes, and nothing tells.
pub fn warn_of_mount_point(path: &Path) {
    if let Ok(true) = is_mounted_file(path) {
        tracing::warn!(
            path = %path.display(),
            "this file is a mount of its own (subPath?) and will never be seen to change; mount its folder instead"
        );
    }
}

fn is_mounted_file(path: &Path) -> io::Result<bool> {
    let path = path.canonicalize()?;
    Ok(path.is_file() && is_mount_point(&path, &std::fs::read_to_string("/proc/self/mountinfo")?))
}

/// Looks for a path among the mount points of `/proc/self/mountinfo`, where the fifth field has white space and backslashes
/// as three octal digits.
fn is_mount_point(path: &Path, mounts: &str) -> bool {
    let escaped: String = path
        .to_string_lossy()
        .chars()
        .map(|c| match c {
            ' ' => "\\040".to_owned(),
            '\t' => "\\011".to_owned(),
            '\n' => "\\012".to_owned(),
            '\\' => "\\134".to_owned(),
            other => other.to_string(),
        })
        .collect();
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(&*escaped))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Kubernetes does with a mounted ConfigMap: the files are links through `..data`, which is replaced as a whole.
    #[tokio::test]
    async fn a_swapped_mount_is_news_and_the_same_bytes_are_none() {
        let mount = tempfile::tempdir().unwrap();
        let swap = |name: &str, content: &str| {
            std::fs::create_dir(mount.path().join(name)).unwrap();
            std::fs::write(mount.path().join(name).join("config"), content).unwrap();
            std::os::unix::fs::symlink(name, mount.path().join("..data_tmp")).unwrap();
            std::fs::rename(mount.path().join("..data_tmp"), mount.path().join("..data")).unwrap();
        };
        swap("..1", "one");
        std::os::unix::fs::symlink("..data/config", mount.path().join("config")).unwrap();
        let (day, missing) = (Duration::from_secs(86_400), mount.path().join("missing"));
        let mut contents = Contents::new(&[missing.clone(), mount.path().join("config")]);
        assert!(contents.look() && !contents.look());
        swap("..2", "two");
        timeout(Duration::from_secs(10), contents.changed(day)).await.expect("the operating system tells");
        swap("..3", "two");
        assert!(timeout(Duration::from_millis(300), contents.changed(day)).await.is_err(), "the bytes are the same");
        std::fs::write(missing, "").unwrap();
        timeout(Duration::from_secs(10), contents.changed(day)).await.expect("an empty file is not a missing one");
    }

    #[test]
    fn a_mount_of_its_own_is_told_from_a_file_in_a_mount() {
        let mounts = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
            23 27 8:1 /k.json /etc/keys/my\\040keys.json ro shared:1 - ext4 /dev/sda1 rw\n";
        assert!(is_mount_point(Path::new("/etc/keys/my keys.json"), mounts));
        assert!(!is_mount_point(Path::new("/etc/keys"), mounts));
        assert!(!is_mount_point(Path::new("/k.json"), mounts));
        assert!(is_mount_point(Path::new("/proc"), mounts));
    }
}
