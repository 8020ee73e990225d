//! Threads for what is long and not urgent: compiling a snapshot, taking apart one that nobody has any more, reading all
//! that is counted.
//!
//! A snapshot of a thousand routes is some hundred thousand pieces of memory. Whichever thread drops the last of those
//! who hold it gives all of them back, in one go; that must not be a worker with requests. And where there are as many
//! workers as cores, such work must not take a worker's turn: these threads run when the workers leave room.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use tokio::sync::oneshot;

/// How much such a thread yields: at five, a worker that is never out of work gets three times as much of a core that both
/// want, and one that wakes up has it at once. More would make a reload under full load wait for long.
const NICE: i32 = 5;

/// How often it is looked whether a snapshot is still held, at first and at last.
const SOON: Duration = Duration::from_millis(10);
const LATER: Duration = Duration::from_millis(250);

type Work = Box<dyn FnOnce() + Send>;

/// One such thread, which ends when this is dropped and its work is done.
#[derive(Clone, Debug)]
pub struct Aside {
    work: Sender<Work>,
}

impl Aside {
    /// # Errors
    /// What the system says when the thread cannot be made.
    pub fn start(name: &str) -> io::Result<Aside> {
        let (work, given) = channel::<Work>();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Of this thread alone, on Linux. Where it is not allowed the kernel shares as it does.
            let _ = rustix::process::nice(NICE);
            for work in given {
                // The panic was logged where it happened; whoever waits sees that there is no result.
                let _ = catch_unwind(AssertUnwindSafe(work));
            }
        })?;
        Ok(Aside { work })
    }

    /// Does it when all that was given before is done, unless nobody waits for it any more by then. The result is missing
    /// if it panicked.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
        let (done, result) = oneshot::channel();
        let work = move || {
            if !done.is_closed() {
                let _ = done.send(work());
            }
        };
        // The thread lives as long as this does.
        let _ = self.work.send(Box::new(work));
        result
    }

    /// Takes `old` apart there once it is held by nobody else.
    pub async fn retire<T: Send + Sync + 'static>(self, old: Arc<T>) {
        let mut pause = SOON;
        while Arc::strong_count(&old) > 1 {
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(LATER);
        }
        let _ = self.run(move || drop(old)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::thread::ThreadId;

    use super::*;

    #[tokio::test]
    async fn work_that_panics_takes_nothing_with_it() {
        let aside = Aside::start("aside").unwrap();
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        assert!(aside.run(|| panic!("as it should")).await.is_err());
        std::panic::set_hook(hook);
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let (here, there) = (nice(), aside.run(nice).await.unwrap());
        assert_eq!(there, (here + NICE).min(19));
    }

    #[tokio::test]
    async fn what_is_old_is_taken_apart_there_when_nobody_has_it() {
        struct Old(std::sync::mpsc::Sender<ThreadId>);
        impl Drop for Old {
            fn drop(&mut self) {
                let _ = self.0.send(std::thread::current().id());
            }
        }
        let aside = Aside::start("aside").unwrap();
        let (tell, told) = channel();
        let old = Arc::new(Old(tell));
        let retired = tokio::spawn(aside.clone().retire(Arc::clone(&old)));
        tokio::time::sleep(4 * SOON).await;
        assert!(told.try_recv().is_err());
        drop(old);
        retired.await.unwrap();
        let there = aside.run(|| std::thread::current().id()).await.unwrap();
        assert_eq!(told.recv().unwrap(), there);
        assert_ne!(there, std::thread::current().id());
    }
}
