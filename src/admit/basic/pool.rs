//! The threads that passwords are hashed on: few, of low priority, with a short line before them. Hashing is slow on
//! purpose; on a worker's thread it would hold up every request there.

use std::fmt;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

/// Half of the cores, this many at most.
const MOST_THREADS: usize = 4;

/// What may wait: whoever comes later is told so at once.
const LINE: usize = 32;

/// Longer than this nobody waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Workers go before.
const NICE: i32 = 10;

/// Starts its threads when it is first needed; they end when it is dropped.
#[derive(Default)]
pub(super) struct Pool(OnceLock<Option<SyncSender<Job>>>);

type Job = Box<dyn FnOnce() + Send>;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Busy {
    Full,
    Late,
    Broken,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Busy::Full => "as many passwords as may wait are waiting to be judged",
            Busy::Late => "the password was not judged in time: too many are",
            Busy::Broken => "no thread could be started to judge passwords, or one failed",
        })
    }
}

impl Pool {
    /// What `work` returns, once a thread has got to it. If nobody waits any more by then it is left out.
    ///
    /// # Errors
    /// Too many wait already, or it takes too long.
    pub(super) async fn ask<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let line = self.0.get_or_init(start).as_ref().ok_or(Busy::Broken)?;
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move || {
            if !answer.is_closed() {
                let _ = answer.send(work());
            }
        });
        match line.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(Busy::Full),
            Err(TrySendError::Disconnected(_)) => return Err(Busy::Broken),
        }
        match timeout(PATIENCE, answered).await {
            Ok(answer) => answer.map_err(|_| Busy::Broken),
            Err(_) => Err(Busy::Late),
        }
    }
}

fn start() -> Option<SyncSender<Job>> {
    let (line, jobs) = sync_channel::<Job>(LINE);
    let jobs = Arc::new(Mutex::new(jobs));
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = (cores / 2).clamp(1, MOST_THREADS);
    let started = (0..threads).filter(|_| {
        let jobs = Arc::clone(&jobs);
        std::thread::Builder::new().name("passwords".to_owned()).spawn(move || run(&jobs)).is_ok()
    });
    (started.count() > 0).then_some(line)
}

fn run(jobs: &Mutex<Receiver<Job>>) {
    // Of this thread alone, on Linux. Where it is not allowed the kernel shares as it does.
    let _ = rustix::process::nice(NICE);
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // Whoever asked finds no answer; the thread goes on.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn work_is_done_elsewhere() {
        let pool = Pool::default();
        let here = std::thread::current().id();
        let there = pool.ask(|| std::thread::current().id()).await.unwrap();
        assert_ne!(here, there);
    }

    #[tokio::test]
    async fn who_comes_to_a_full_line_is_told_at_once_and_nobody_works_for_those_who_left() {
        let pool = Arc::new(Pool::default());
        let (open, gate) = channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let done = Arc::new(AtomicUsize::new(0));
        let held = |pool: &Arc<Pool>| {
            let (pool, gate, done) = (Arc::clone(pool), Arc::clone(&gate), Arc::clone(&done));
            tokio::spawn(async move {
                let work = move || {
                    let _ = gate.lock().unwrap().recv();
                    done.fetch_add(1, Ordering::SeqCst);
                };
                pool.ask(work).await
            })
        };
        // More than the threads and the line can hold.
        let (told, waiting): (Vec<_>, Vec<_>) = {
            let all: Vec<_> = (0..LINE + MOST_THREADS + 1).map(|_| held(&pool)).collect();
            tokio::task::yield_now().await;
            all.into_iter().partition(tokio::task::JoinHandle::is_finished)
        };
        assert!(!told.is_empty() && waiting.len() >= LINE, "{} of them were told", told.len());
        for task in told {
            assert_eq!(task.await.unwrap(), Err(Busy::Full));
        }
        for task in waiting {
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        }
        drop(open);
        let empty = async {
            while pool.ask(|| ()).await == Err(Busy::Full) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), empty).await.unwrap();
        assert!(done.load(Ordering::SeqCst) <= MOST_THREADS, "those in the line had left");
    }

    #[tokio::test]
    async fn a_failure_takes_no_thread_away() {
        let pool = Pool::default();
        for _ in 0..MOST_THREADS * 2 {
            assert_eq!(pool.ask(|| std::panic::resume_unwind(Box::new(()))).await, Err::<(), _>(Busy::Broken));
        }
        assert_eq!(pool.ask(|| 7).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let pool = Pool::default();
        let (open, gate) = channel::<()>();
        let asked = pool.ask(move || gate.recv());
        assert_eq!(asked.await.unwrap_err(), Busy::Late);
        drop(open);
    }
}
