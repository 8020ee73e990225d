//! Handshakes take turns, so that a flood of them does not hold up the connections that are established.
//!
//! A step of a handshake may take a worker a hundred times as long as a request does, and a worker runs what is ready in the
//! order in which it became so: behind a thousand clients that connect at once, every other would wait for a thousand
//! steps. So after each step the worker looks for events before it takes the next: what has come on an established
//! connection meanwhile is served in between.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::Semaphore;
use tokio::task::yield_now;

/// The turns of one worker.
#[derive(Debug)]
pub struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Turns {
        Turns(Arc::new(Semaphore::new(1)))
    }
}

impl Turns {
    /// Runs `future` to its end, in turn with all others that are run so. While it waits for an event it holds no turn.
    pub(super) async fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        loop {
            // The semaphore is never closed.
            let turn = Arc::clone(&self.0).acquire_owned().await;
            // The future has the task's waker from here.
            let step = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
            tokio::spawn(async move {
                // The runtime takes up those who yield only after it has looked for events.
                yield_now().await;
                drop(turn);
            });
            if let Poll::Ready(output) = step {
                return output;
            }
            woken().await;
        }
    }
}

/// Ready once whoever was given the task's waker before has used it.
async fn woken() {
    let mut waited = false;
    poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    /// On a runtime like a worker's.
    fn on_one_thread(test: impl Future<Output = ()>) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build_local(tokio::runtime::LocalOptions::default()).unwrap();
        runtime.block_on(test);
    }

    #[test]
    fn what_comes_on_an_established_connection_is_served_between_two_steps() {
        on_one_thread(async {
            let (turns, steps) = (Rc::new(Turns::default()), Rc::new(Cell::new(0)));
            let (mut near, mut far) = UnixStream::pair().unwrap();
            let seen = Rc::clone(&steps);
            let established = tokio::task::spawn_local(async move {
                near.read_u8().await.unwrap();
                seen.get()
            });
            tokio::task::yield_now().await;
            for _ in 0..1000 {
                let (turns, steps) = (Rc::clone(&turns), Rc::clone(&steps));
                tokio::task::spawn_local(async move { turns.run(async { steps.set(steps.get() + 1) }).await });
            }
            far.write_all(b"x").await.unwrap();
            let before = established.await.unwrap();
            assert!(before < 100, "{before} steps were taken first");
        });
    }

    #[test]
    fn who_waits_for_an_event_holds_nobody_up() {
        on_one_thread(async {
            let turns = Rc::new(Turns::default());
            let order = Rc::new(RefCell::new(Vec::new()));
            let (mut near, mut far) = UnixStream::pair().unwrap();
            let (waiting, told) = (Rc::clone(&turns), Rc::clone(&order));
            let waits = tokio::task::spawn_local(async move {
                waiting.run(async { near.read_u8().await.unwrap() }).await;
                told.borrow_mut().push("waited");
            });
            tokio::task::yield_now().await;
            turns.run(async { order.borrow_mut().push("went on") }).await;
            far.write_all(b"x").await.unwrap();
            waits.await.unwrap();
            assert_eq!(*order.borrow(), ["went on", "waited"]);
        });
    }
}
