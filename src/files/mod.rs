//! Files as answers: those beneath a route's `files`, and those that a service names by `X-Accel-Redirect` or
//! `X-Sendfile` beneath its route's `internal_files`.
//!
//! Nothing here knows of routes and upstreams. A path becomes a [`Beneath`](path::Beneath), which names nothing outside; the
//! kernel resolves it within its root (`root`); the file or a sibling that was compressed beforehand is chosen (`find`);
//! the conditions and ranges of the request decide what of it is sent (`answer`), and it is read while it is sent (`body`).

pub mod answer;
pub mod body;
pub mod find;
pub mod internal;
pub mod kind;
pub mod path;
pub mod range;
pub mod root;
pub mod validators;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use self::find::{Sought, find};
use self::path::Beneath;
use self::root::{Failure, Patience, Root};
use crate::coding::accept::Accepted;

/// Look-ups and reads of one worker that wait for the disk at the same time. Each takes a thread.
const WAITING: usize = 32;

/// How long the disk is waited for: one that takes longer has died, or the network in front of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// What of a worker may wait for the disk.
#[derive(Clone, Debug)]
pub struct Readers(Arc<Semaphore>);

impl Default for Readers {
    fn default() -> Readers {
        Readers(Arc::new(Semaphore::new(WAITING)))
    }
}

impl Readers {
    /// Runs `work` on a thread that may block, when it is its turn.
    ///
    /// # Errors
    /// Those of `work`; `TimedOut` when the disk does not answer.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        let run = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&self.0).acquire_owned().await.map_err(io::Error::other)?;
            let work = move || {
                // Held until the work is over, though nobody may wait for it any more.
                let _permit = permit;
                work()
            };
            tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
        };
        let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "the disk did not answer within 30 s");
        tokio::time::timeout(PATIENCE, run).await.map_err(silent)?
    }
}

/// Looks for what answers `path` without ever blocking this thread; see [`find`](find::find).
///
/// # Errors
/// Why nothing does.
pub async fn look_up(
    readers: &Readers,
    root: &Arc<Root>,
    path: Result<Beneath, &'static str>,
    slash: bool,
    accepted: Accepted,
) -> Result<Sought, Failure> {
    match find(root, &path, slash, &accepted, Patience::None) {
        Err(Failure::WouldBlock) => {}
        sought => return sought,
    }
    let root = Arc::clone(root);
    let patiently = move || Ok(find(&root, &path, slash, &accepted, Patience::Disk));
    match readers.run(patiently).await.map_err(Failure::Io)? {
        Err(Failure::WouldBlock) => Err(Failure::Io(io::ErrorKind::WouldBlock.into())),
        sought => sought,
    }
}
