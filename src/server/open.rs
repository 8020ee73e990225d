//! The connections that a worker holds open, counted so that its end can wait for theirs.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

/// A worker's count of open connections.
#[derive(Default)]
pub(super) struct OpenConnections {
    count: Cell<usize>,
    all_closed: Notify,
}

impl OpenConnections {
    /// One more, until what is returned is dropped.
    pub(super) fn enter(self: &Rc<Self>) -> Open {
        self.count.set(self.count.get().saturating_add(1));
        Open(Rc::clone(self))
    }

    pub(super) fn count(&self) -> usize {
        self.count.get()
    }

    /// Waits until none is open.
    pub(super) async fn all_closed(&self) {
        while self.count.get() > 0 {
            // One thread: nothing can close between the look and the wait.
            self.all_closed.notified().await;
        }
    }
}

/// One open connection.
pub(super) struct Open(Rc<OpenConnections>);

impl Drop for Open {
    fn drop(&mut self) {
        let count = self.0.count.get().saturating_sub(1);
        self.0.count.set(count);
        if count == 0 {
            self.0.all_closed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_the_last() {
        let open = Rc::new(OpenConnections::default());
        open.all_closed().await;
        let (one, two) = (open.enter(), open.enter());
        assert_eq!(open.count(), 2);
        let waiting = open.all_closed();
        let closing = async {
            drop(one);
            tokio::task::yield_now().await;
            drop(two);
        };
        tokio::join!(waiting, closing);
        assert_eq!(open.count(), 0);
    }
}
