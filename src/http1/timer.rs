//! A deadline that is moved for every request and hardly ever met.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::clock;

/// Stands for a moment that the clock cannot express.
const FAR: Duration = Duration::from_secs(365 * 86400);

/// A timer whose wheel entry is only touched when it fires or is brought forward: moving a deadline back, as every
/// request does, is a store.
#[derive(Default)]
pub struct Timer {
    deadline: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Who will be woken by `sleep` as it stands; asking again would change nothing.
    waiting: Option<Waker>,
}

impl Timer {
    pub fn new() -> Timer {
        Timer::default()
    }

    pub fn set(&mut self, after: Duration) {
        let now = clock::recent();
        self.set_at(now.checked_add(after).unwrap_or(now + FAR));
    }

    pub fn set_at(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
    }

    pub fn is_set(&self) -> bool {
        self.deadline.is_some()
    }

    pub fn clear(&mut self) {
        self.deadline = None;
    }

    /// Ready once the deadline has passed; wakes the task then.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
            self.waiting = None;
        }
        if !sleep.is_elapsed() && self.waiting.as_ref().is_some_and(|waiting| waiting.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        self.waiting = Some(cx.waker().clone());
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= deadline {
                self.waiting = None;
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn expires_at_the_last_deadline_set() {
        let start = Instant::now();
        let mut timer = Timer::new();
        timer.set(Duration::from_secs(5));
        assert!(futures_poll(&mut timer).is_pending());
        timer.set(Duration::from_secs(60));
        std::future::poll_fn(|cx| timer.poll_expired(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 60);
        timer.set(Duration::from_secs(10));
        std::future::poll_fn(|cx| timer.poll_expired(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 70);
    }

    #[tokio::test(start_paused = true)]
    async fn can_be_brought_forward() {
        let start = Instant::now();
        let mut timer = Timer::new();
        timer.set(Duration::from_secs(60));
        assert!(futures_poll(&mut timer).is_pending());
        timer.set(Duration::from_secs(1));
        std::future::poll_fn(|cx| timer.poll_expired(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 1);
    }

    fn futures_poll(timer: &mut Timer) -> Poll<()> {
        timer.poll_expired(&mut Context::from_waker(std::task::Waker::noop()))
    }
}
