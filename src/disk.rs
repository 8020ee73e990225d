//! Asking a disk that may be dead, or the network in front of it: such a call never returns, and nothing ends it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

/// How long it is waited for where a whole configuration waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is still being asked though nobody waits any more.
static SILENT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn silent() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    SILENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The disk did not answer within a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silent;

impl std::error::Error for Silent {}

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the disk does not answer")
    }
}

/// What `look` says of `path`, on a thread of its own. One that hangs is left alone, and the path is not asked about
/// again before it is back: however often the configuration is read, a path costs one thread.
///
/// # Errors
/// `Silent`.
pub fn ask<T: Send + 'static>(path: &Path, look: impl FnOnce() -> T + Send + 'static) -> Result<T, Silent> {
    if silent().contains(path) {
        return Err(Silent);
    }
    let (tell, told) = mpsc::sync_channel(1);
    let about = path.to_owned();
    let asking = move || {
        let said = look();
        let mut silent = silent();
        silent.remove(&about);
        // Under the lock, so that nobody holds it to be silent after it has spoken.
        let _ = tell.send(said);
    };
    // Without a thread nobody asks: then nothing is known of the disk either.
    std::thread::Builder::new().name("disk".into()).spawn(asking).map_err(|_| Silent)?;
    told.recv_timeout(PATIENCE).or_else(|_| {
        let mut silent = silent();
        told.try_recv().map_err(|_| {
            silent.insert(path.to_owned());
            Silent
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_hangs_is_given_up_and_asked_about_again_once_it_is_back() {
        let path = Path::new("/hangs");
        assert_eq!(ask(path, || 1), Ok(1));
        let (come_back, hangs) = mpsc::channel::<()>();
        assert_eq!(ask(path, move || hangs.recv().is_ok()), Err(Silent));
        let asked_again = || panic!("it is known to hang");
        assert_eq!(ask(path, asked_again), Err::<(), _>(Silent));
        assert_eq!(ask(Path::new("/does/not"), || 2), Ok(2));
        come_back.send(()).unwrap();
        while silent().contains(path) {
            std::thread::yield_now();
        }
        assert_eq!(ask(path, || 3), Ok(3));
    }
}
