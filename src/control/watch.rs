//! Reload when a file that the configuration was made of changes.
//!
//! Editors replace a file by renaming another over it, and Kubernetes swaps a symbolic link to a whole directory, so
//! what is watched are directories: that of each file, and of whatever its path leads through by links. An event is
//! only a hint; whether anything changed is seen by comparing the files' identities, sizes and times.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Control;
use super::reload::Trigger;

/// How long files must have been left alone before they are read.
const SETTLE: Duration = Duration::from_millis(200);

/// Files that never come to rest are read after this nevertheless.
const SETTLE_AT_MOST: Duration = Duration::from_secs(2);

/// Links that a path may lead through.
const MAX_LINKS: usize = 40;

/// Reloads whenever a watched file changes, for as long as the process lives.
pub(super) async fn run(control: Arc<Control>) {
    let (hint, mut hints) = mpsc::channel(1);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.map_or(true, |event| matters(event.kind)) {
            // Full means that a hint waits already.
            let _ = hint.try_send(());
        }
    });
    let mut watching = match watcher {
        Ok(watcher) => Watching { watcher, directories: BTreeSet::new() },
        Err(error) => {
            tracing::warn!(%error, remedy = "Raise fs.inotify.max_user_instances, or reload by SIGHUP.",
                "files cannot be watched: changes take effect only by SIGHUP or `passerelle reload`");
            return;
        }
    };
    let mut made_of = control.files.subscribe();
    let mut seen = {
        let made_of = made_of.borrow_and_update();
        made_of.seen(&watching.follow(&made_of.files))
    };
    loop {
        let read_again = tokio::select! {
            changed = made_of.changed() => {
                if changed.is_err() {
                    return;
                }
                true
            }
            hint = hints.recv() => {
                if hint.is_none() {
                    return;
                }
                settle(&mut hints).await;
                made_of.has_changed().unwrap_or(false)
            }
        };
        let made_of = made_of.borrow_and_update().clone();
        let now = watching.follow(&made_of.files);
        if read_again {
            // Whatever asked for it: a change that it has read is none any more, one behind its back still is.
            seen = made_of.seen(&now);
        }
        if now != seen {
            seen = now;
            let _ = control.reload(Trigger::FileChange).await;
        }
    }
}

/// The files that the configuration was made of when it was last read.
#[derive(Clone, Debug, Default)]
pub(super) struct MadeOf {
    pub(super) files: Vec<PathBuf>,
    /// How those of before looked right before they were read.
    pub(super) looks: Looks,
}

/// How files look.
type Looks = BTreeMap<PathBuf, Option<Look>>;

pub(super) fn looks(files: &[PathBuf]) -> Looks {
    files.iter().map(|file| (file.clone(), Look::of(file))).collect()
}

impl MadeOf {
    /// How the files looked that were read, where it is known, else how they look `now`.
    fn seen(&self, now: &Looks) -> Looks {
        let before =
            |(file, look): (&PathBuf, &Option<Look>)| (file.clone(), self.looks.get(file).copied().unwrap_or(*look));
        now.iter().map(before).collect()
    }
}

/// Whether an event may tell of a change.
///
/// Where closing is told, a file that is written has changed when it is closed. One that never is, such as a log beside
/// the configuration, would otherwise ask for a look at the files with every line.
pub(crate) fn matters(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Modify(ModifyKind::Data(_)) => !cfg!(target_os = "linux"),
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => true,
    }
}

/// Waits until no hint has come for a while.
pub(crate) async fn settle(hints: &mut mpsc::Receiver<()>) {
    let end = Instant::now() + SETTLE_AT_MOST;
    while let Ok(Some(())) = tokio::time::timeout_at(end.min(Instant::now() + SETTLE), hints.recv()).await {
        if Instant::now() >= end {
            break;
        }
    }
}

struct Watching {
    watcher: RecommendedWatcher,
    directories: BTreeSet<PathBuf>,
}

impl Watching {
    /// Watches the directories of `files` and no others; returns how the files look now.
    fn follow(&mut self, files: &[PathBuf]) -> Looks {
        let wanted: BTreeSet<_> = files.iter().flat_map(|file| directories_of(file)).collect();
        for directory in self.directories.difference(&wanted) {
            let _ = self.watcher.unwatch(directory);
        }
        // Those that stay are watched anew too: a directory that was replaced is another one of the same name.
        for directory in &wanted {
            if let Err(error) = self.watcher.watch(directory, RecursiveMode::NonRecursive)
                && !self.directories.contains(directory)
            {
                tracing::debug!(directory = %directory.display(), %error, "a directory cannot be watched");
            }
        }
        self.directories = wanted;
        looks(files)
    }
}

/// What differs when a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Look {
    /// `None`: it is not there.
    fn of(file: &Path) -> Option<Look> {
        let metadata = std::fs::metadata(file).ok()?;
        Some(Look {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// The directories where a change may change what `file` leads to: its own, and wherever a link on its path lies.
fn directories_of(file: &Path) -> BTreeSet<PathBuf> {
    let mut directories = BTreeSet::new();
    let mut left: Vec<PathBuf> = vec![file.to_owned()];
    let mut links = 0;
    while let Some(path) = left.pop() {
        if let Some(parent) = path.parent() {
            directories.insert(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() });
        }
        for part in path.ancestors() {
            if let Ok(target) = std::fs::read_link(part) {
                links += 1;
                let beneath = path.strip_prefix(part).unwrap_or(Path::new(""));
                let parent = part.parent().unwrap_or(Path::new("."));
                directories.insert(parent.to_owned());
                if links <= MAX_LINKS {
                    left.push(parent.join(target).join(beneath));
                }
            }
        }
    }
    directories
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A volume as Kubernetes mounts it: each file a link into a directory that is a link itself.
    fn volume() -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().canonicalize().unwrap();
        for version in ["v1", "v2"] {
            std::fs::create_dir(root.join(version)).unwrap();
            std::fs::write(root.join(version).join("file"), version).unwrap();
        }
        symlink("v1", root.join("..data")).unwrap();
        symlink("..data/file", root.join("file")).unwrap();
        (home, root)
    }

    #[test]
    fn every_directory_that_a_path_leads_through_is_watched() {
        let (_home, root) = volume();
        let directories = directories_of(&root.join("file"));
        for expected in [root.clone(), root.join("v1")] {
            let found = directories.iter().any(|directory| directory.canonicalize().unwrap() == expected);
            assert!(found, "{} is not in {directories:?}", expected.display());
        }
    }

    #[test]
    fn links_in_a_circle_end() {
        let home = tempfile::tempdir().unwrap();
        symlink("b", home.path().join("a")).unwrap();
        symlink("a", home.path().join("b")).unwrap();
        assert!(!directories_of(&home.path().join("a")).is_empty());
    }

    #[test]
    fn what_looks_different() {
        let (_home, root) = volume();
        let file = root.join("file");
        let before = Look::of(&file);
        assert_eq!(Look::of(&file), before);
        // The link that the file's own link goes through is replaced.
        symlink("v2", root.join("new")).unwrap();
        std::fs::rename(root.join("new"), root.join("..data")).unwrap();
        let swapped = Look::of(&file);
        assert_ne!(swapped, before);
        std::fs::write(root.join("v2/file"), "longer than before").unwrap();
        assert_ne!(Look::of(&file), swapped);
        std::fs::remove_file(root.join("v2/file")).unwrap();
        assert_eq!(Look::of(&file), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_that_is_written_has_changed_when_it_is_closed() {
        let home = tempfile::tempdir().unwrap();
        let mut log = std::fs::File::create(home.path().join("log")).unwrap();
        let (told, events) = std::sync::mpsc::channel::<notify::Result<notify::Event>>();
        let mut watcher = notify::recommended_watcher(told).unwrap();
        watcher.watch(home.path(), RecursiveMode::NonRecursive).unwrap();
        // What was heard before a directory of this name was made.
        let heard = |mark: &str| {
            std::fs::create_dir(home.path().join(mark)).unwrap();
            let next = || events.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
            let before = std::iter::repeat_with(next).take_while(|event| !event.paths[0].ends_with(mark));
            before.map(|event| event.kind).collect::<Vec<_>>()
        };
        log.write_all(b"a line\n").unwrap();
        let written = heard("first");
        assert!(!written.is_empty() && !written.iter().copied().any(matters), "{written:?}");
        drop(log);
        let closed = heard("second");
        assert!(closed.iter().copied().any(matters), "{closed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_never_rest_are_read_in_the_end() {
        let (hint, mut hints) = mpsc::channel(1);
        let busy = tokio::spawn(async move {
            while hint.send(()).await.is_ok() {
                tokio::time::sleep(SETTLE / 2).await;
            }
        });
        let start = Instant::now();
        settle(&mut hints).await;
        assert!(start.elapsed() >= SETTLE_AT_MOST && start.elapsed() < SETTLE_AT_MOST + SETTLE);
        busy.abort();
    }
}
