//! Releases on disk: which there are, which one serves, and those before it. What was under way when a gateway died
//! counts as not made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::kept::{Asked, Record};
use super::place::{self, Place};
use super::remove::remove;

const RECORD: &str = "release.json";
const CODE: &str = "code";

/// The order in which releases served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct History {
    /// The one that serves.
    pub(super) current: Option<u64>,
    /// Those before it, the last one last: where `rollback` leads.
    pub(super) before: Vec<u64>,
    /// The one that serves is watched still, by a gateway that is there to take it back.
    #[serde(default)]
    pub(super) on_trial: bool,
    /// The highest number that any had: none is given twice.
    #[serde(default)]
    pub(super) last: u64,
    /// What the configuration asked for when the one that serves was switched to, be it that one's own or not: a rollback
    /// leaves the configuration as it is. `None`: a gateway wrote this that did not keep it.
    #[serde(default)]
    pub(super) configured: Option<Asked>,
}

impl History {
    /// `release` serves now.
    pub(super) fn switched(&mut self, release: u64) {
        self.before.extend(self.current.filter(|current| *current != release));
        self.current = Some(release);
        self.last = self.last.max(release);
    }

    /// The release that serves has proven good: at most `keep` are remembered, it among them. `in_place_of`: one whose code
    /// it has, under other settings; nobody needs to go back to that.
    pub(super) fn settled(&mut self, keep: u32, in_place_of: Option<u64>) {
        self.on_trial = false;
        self.before.retain(|release| Some(*release) != in_place_of);
        let most = usize::try_from(keep).unwrap_or(usize::MAX).saturating_sub(1);
        let superfluous = self.before.len().saturating_sub(most);
        self.before.drain(..superfluous);
    }

    /// The one before serves again.
    pub(super) fn rolled_back(&mut self) {
        self.current = self.before.pop().or(self.current);
        self.on_trial = false;
    }

    pub(super) fn all(&self) -> BTreeSet<u64> {
        self.before.iter().copied().chain(self.current).collect()
    }
}

/// The releases of one app. Its calls block.
#[derive(Clone, Debug)]
pub(super) struct Store {
    place: Place,
}

impl Store {
    pub(super) fn new(place: &Place) -> Store {
        Store { place: place.clone() }
    }

    /// # Errors
    /// The file cannot be read or makes no sense.
    pub(super) fn history(&self) -> io::Result<History> {
        let path = self.place.current();
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| place::named(&path, &error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(History::default()),
            Err(error) => Err(place::named(&path, &error)),
        }
    }

    /// In one step: whoever reads sees the one or the other.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn remember(&self, history: &History) -> io::Result<()> {
        replace(&self.place.current(), &serde_json::to_vec_pretty(history)?)
    }

    pub(super) fn code(&self, id: u64) -> PathBuf {
        self.directory(id).join(CODE)
    }

    pub(super) fn directory(&self, id: u64) -> PathBuf {
        self.place.releases().join(id.to_string())
    }

    /// A number that no release has had, and its directory.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn begin(&self) -> io::Result<u64> {
        let last = self.ids()?.into_iter().max().unwrap_or(0);
        let mut history = self.history()?;
        let remembered = history.all().into_iter().max().unwrap_or(0).max(history.last);
        let id = last.max(remembered).saturating_add(1);
        place::passage(&self.directory(id))?;
        history.last = id;
        self.remember(&history)?;
        Ok(id)
    }

    /// The release is whole.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn made(&self, record: &Record) -> io::Result<()> {
        replace(&self.directory(record.id).join(RECORD), &serde_json::to_vec_pretty(record)?)
    }

    /// `None`: there is none of this number, or it was not made whole.
    fn record(&self, id: u64) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.directory(id).join(RECORD)).ok()?).ok()
    }

    /// Those of `ids` that are there.
    pub(super) fn records(&self, ids: &BTreeSet<u64>) -> BTreeMap<u64, Record> {
        ids.iter().filter_map(|id| Some((*id, self.record(*id)?))).collect()
    }

    /// Removes every release but those of `keep`.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn prune(&self, keep: &BTreeSet<u64>) -> io::Result<()> {
        for id in self.ids()?.difference(keep) {
            self.remove(*id)?;
        }
        Ok(())
    }

    /// # Errors
    /// The system refuses.
    pub(super) fn remove(&self, id: u64) -> io::Result<()> {
        let path = self.directory(id);
        // The record goes first: what is left after a break is no release.
        let _ = fs::remove_file(path.join(RECORD));
        remove(&path).map_err(|error| place::named(&path, &error))
    }

    fn ids(&self) -> io::Result<BTreeSet<u64>> {
        let path = self.place.releases();
        let entries = fs::read_dir(&path).map_err(|error| place::named(&path, &error))?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let told = |error: io::Error| place::named(path, &error);
    let beside = path.with_extension("new");
    let mut options = fs::File::options();
    // What other users learn from it is none of their business. One that was left behind may be open to them.
    let _ = fs::remove_file(&beside);
    let mut file = options.create_new(true).write(true).mode(0o600).open(&beside).map_err(told)?;
    io::Write::write_all(&mut file, bytes).map_err(told)?;
    file.sync_all().map_err(told)?;
    fs::rename(&beside, path).map_err(told)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::SystemTime;

    use super::super::account::Account;
    use super::*;

    fn seen(history: &History) -> (Option<u64>, Vec<u64>) {
        (history.current, history.before.clone())
    }

    #[test]
    fn rollback_leads_to_what_served_before() {
        let mut history = History::default();
        let release = |history: &mut History, id, keep, in_place_of| {
            history.switched(id);
            history.settled(keep, in_place_of);
        };
        (1..=4).for_each(|id| release(&mut history, id, 3, None));
        assert_eq!(seen(&history), (Some(4), vec![2, 3]));
        history.rolled_back();
        assert_eq!(seen(&history), (Some(3), vec![2]));
        release(&mut history, 5, 3, None);
        assert_eq!(seen(&history), (Some(5), vec![2, 3]));
        // Other settings are no release to go back to.
        release(&mut history, 6, 3, Some(5));
        assert_eq!(seen(&history), (Some(6), vec![2, 3]));
        history.rolled_back();
        history.rolled_back();
        history.rolled_back();
        assert_eq!(seen(&history), (Some(2), vec![]));
        release(&mut history, 7, 1, None);
        assert_eq!(seen(&history), (Some(7), vec![]));
        assert_eq!(history.last, 7);
    }

    #[test]
    fn what_was_not_finished_is_no_release() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::new(directory.path(), "app", &Account { ids: None });
        fs::create_dir_all(place.releases()).unwrap();
        let store = Store::new(&place);
        assert_eq!(store.history().unwrap(), History::default());
        assert_eq!(store.begin().unwrap(), 1);
        assert_eq!(store.record(1), None);
        assert_eq!(store.begin().unwrap(), 2);
        let record = Record {
            id: 2,
            directory: "/srv/app".into(),
            environment: "abc".into(),
            made: SystemTime::UNIX_EPOCH,
            uid: None,
            asked: None,
            runs: None,
        };
        store.made(&record).unwrap();
        assert_eq!(store.record(2), Some(record));
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(store.directory(2).join(RECORD)), 0o600);
        // A gateway wrote it that kept less.
        let old = r#"{"id":2,"directory":"/srv/app","environment":"abc","made":{"secs_since_epoch":0,"nanos_since_epoch":0}}"#;
        fs::write(store.directory(2).join(RECORD), old).unwrap();
        assert_eq!(store.record(2).map(|record| (record.uid, record.asked, record.runs)), Some((None, None, None)));
        store.prune(&BTreeSet::from([2])).unwrap();
        assert_eq!(store.ids().unwrap(), BTreeSet::from([2]));
        let history = History { current: Some(2), before: vec![1], ..History::default() };
        store.remember(&history).unwrap();
        assert_eq!(store.history().unwrap(), history);
    }
}
