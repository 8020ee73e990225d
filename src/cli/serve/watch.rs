//! `--watch`: a release whenever the code changes. Directories are watched one by one, without those that hold no code,
//! so that an environment with thousands of files costs nothing. An event is only a hint; whether anything changed is
//! seen by looking.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::KEPT_AS;
use super::sources::is_beside;
use super::text::Plan;
use crate::app::background::Pending;
use crate::cli::{Exit, print_error};
use crate::control::{Control, matters, settle};

/// More than any service consists of: what comes after is not watched.
const MOST_DIRECTORIES: usize = 2_000;
const MOST_FILES: usize = 50_000;

/// Endings of what editors, interpreters and databases leave behind.
const NO_CODE: [&str; 15] =
    ["pyc", "pyo", "swp", "swo", "swx", "tmp", "bak", "orig", "log", "db", "sqlite", "sqlite3", "db3", "rdb", "pid"];

/// Releases what changes, for as long as the process lives; comes back where nothing can be watched.
pub(super) async fn run(control: &Control, plan: &Plan) -> Exit {
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
            print_error(&format!("passerelle: nothing can be watched: {error}; raise fs.inotify.max_user_instances\n"));
            return Exit::Failed;
        }
    };
    let (name, directory) = (&plan.target.name, &plan.target.directory);
    let mut seen = watching.follow(directory);
    let mut under_way: Option<Pending> = None;
    loop {
        tokio::select! {
            hint = hints.recv() => {
                if hint.is_none() {
                    return Exit::Failed;
                }
                settle(&mut hints).await;
                let now = watching.follow(directory);
                if now == seen {
                    continue;
                }
                print_error(&format!("passerelle: {} changed\n", changed(&seen, &now, directory)));
                seen = now;
                // One that is under way is called off: nobody waits for what was mended meanwhile.
                under_way = match control.apps.release_newest(name) {
                    Ok(pending) => Some(pending),
                    Err(why) => {
                        tell(Err(why));
                        None
                    }
                };
            }
            outcome = outcome_of(under_way.as_mut()) => {
                under_way = None;
                tell(outcome);
            }
        }
    }
}

/// Waits for ever where there is nothing to wait for.
async fn outcome_of(under_way: Option<&mut Pending>) -> Result<String, String> {
    match under_way {
        Some(pending) => (&mut pending.outcome).await.unwrap_or_else(|_| Err("the gateway is about to end".to_owned())),
        None => std::future::pending().await,
    }
}

fn tell(outcome: Result<String, String>) {
    match outcome {
        // Where the log is seen in the same place it has said so.
        Ok(_) if std::io::stdout().is_terminal() && std::io::stderr().is_terminal() => {}
        Ok(done) => print_error(&format!("passerelle: {done}\n")),
        Err(why) => print_error(&format!("passerelle: not put in place: {why}\n")),
    }
}

/// What differs when a file has changed.
type Look = (u64, u64, i64, i64);

struct Watching {
    watcher: RecommendedWatcher,
    directories: BTreeSet<PathBuf>,
}

impl Watching {
    /// Watches all directories of the code; returns how its files look now.
    fn follow(&mut self, directory: &Path) -> BTreeMap<PathBuf, Look> {
        let Tree { directories, files } = Tree::of(directory);
        for gone in self.directories.difference(&directories) {
            let _ = self.watcher.unwatch(gone);
        }
        // Those that stay are watched anew too: a directory that was replaced is another one of the same name.
        for directory in &directories {
            if let Err(error) = self.watcher.watch(directory, RecursiveMode::NonRecursive)
                && !self.directories.contains(directory)
            {
                print_error(&format!("passerelle: {} is not watched: {error}\n", directory.display()));
            }
        }
        self.directories = directories;
        files
    }
}

/// The code, as far as it is watched.
#[derive(Debug, Default)]
struct Tree {
    directories: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, Look>,
}

impl Tree {
    fn of(directory: &Path) -> Tree {
        let mut tree = Tree::default();
        let mut left = vec![directory.to_owned()];
        while let Some(directory) = left.pop() {
            if tree.directories.len() >= MOST_DIRECTORIES {
                break;
            }
            for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
                let path = entry.path();
                let name = entry.file_name().to_string_lossy().into_owned();
                let Ok(kind) = entry.file_type() else { continue };
                if kind.is_dir() {
                    if !is_beside(&path, &name) {
                        left.push(path);
                    }
                } else if is_code(&name)
                    && tree.files.len() < MOST_FILES
                    && let Ok(metadata) = std::fs::metadata(&path)
                {
                    let look = (metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec());
                    tree.files.insert(path, look);
                }
            }
            tree.directories.insert(directory);
        }
        tree
    }
}

fn is_code(name: &str) -> bool {
    // What databases keep beside their files has names such as orders.db-wal.
    let beside = ["-wal", "-shm", "-journal"].iter().find_map(|beside| name.strip_suffix(beside));
    let ending = beside.unwrap_or(name).rsplit_once('.').map_or("", |(_, ending)| ending);
    // Vim tries out whether it may write by a file of this name.
    !name.starts_with(['.', '#'])
        && !name.ends_with('~')
        && name != "4913"
        && name != KEPT_AS
        && !NO_CODE.contains(&ending)
}

/// One file that differs, and how many more.
fn changed(before: &BTreeMap<PathBuf, Look>, now: &BTreeMap<PathBuf, Look>, directory: &Path) -> String {
    let different = now.iter().filter(|(path, look)| before.get(*path) != Some(look)).map(|(path, _)| path);
    let gone = before.keys().filter(|path| !now.contains_key(*path));
    let mut all = different.chain(gone);
    let first = all.next().map_or(directory, PathBuf::as_path);
    let first = first.strip_prefix(directory).unwrap_or(first).display().to_string();
    match all.count() {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_code_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let put = |path: &str| {
            let path = home.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        for path in ["app.py", "shop/views.py", "shop/templates/list.html", "shop/static/shop.css", "requirements.txt"]
        {
            put(path);
        }
        let tree = || Tree::of(home.path());
        let (before, directories) = (tree().files, tree().directories);
        assert_eq!((before.len(), directories.len()), (5, 4));
        for path in [
            ".git/index",
            "shop/__pycache__/views.pyc",
            "env/pyvenv.cfg",
            "env/lib/x.py",
            "node_modules/a/b.js",
            ".app.py.swp",
            "app.py~",
            "4913",
            "#app.py#",
            "orders.db",
            "orders.db-wal",
            "orders.sqlite3-shm",
            "shop/run.log",
            ".venv/x.py",
        ] {
            put(path);
        }
        assert_eq!(tree().files, before);
        assert_eq!(tree().directories, directories);
        std::fs::write(home.path().join("shop/views.py"), "changed").unwrap();
        std::fs::remove_file(home.path().join("app.py")).unwrap();
        assert_eq!(changed(&before, &tree().files, home.path()), "shop/views.py and 1 more");
    }

    #[test]
    fn a_change_beneath_is_noticed_in_new_directories_too() {
        let home = tempfile::tempdir().unwrap();
        let (hint, hints) = std::sync::mpsc::channel();
        let watcher = notify::recommended_watcher(move |_| {
            let _ = hint.send(());
        });
        let mut watching = Watching { watcher: watcher.unwrap(), directories: BTreeSet::new() };
        watching.follow(home.path());
        let noticed = || hints.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
        std::fs::create_dir(home.path().join("shop")).unwrap();
        noticed();
        let before = watching.follow(home.path());
        while hints.try_recv().is_ok() {}
        std::fs::write(home.path().join("shop/views.py"), "").unwrap();
        noticed();
        assert_ne!(watching.follow(home.path()), before);
    }
}
