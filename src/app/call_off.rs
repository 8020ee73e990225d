//! What is asked for while a release is under way, and calls that off: a rollback, so that whoever asks need not wait for
//! its end, nor learn which of the two it undoes; and a release of newer code.

use std::future::pending;
use std::sync::Arc;

use tokio::sync::watch;

/// How many were asked for, for those who ask. They are counted, so that none is missed by whoever looks later.
#[derive(Clone, Debug, Default)]
pub(super) struct CallOff(Arc<watch::Sender<u64>>);

impl CallOff {
    pub(super) fn ask(&self) {
        self.0.send_modify(|asked| *asked = asked.saturating_add(1));
    }
}

/// The same for who answers, one after the other.
#[derive(Debug, Default)]
pub(super) struct Calls {
    call_off: CallOff,
    answered: u64,
}

impl Calls {
    pub(super) fn call_off(&self) -> CallOff {
        self.call_off.clone()
    }

    /// The next is answered, or about to be.
    pub(super) fn answer(&mut self) {
        self.answered = self.answered.saturating_add(1);
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    pub(super) fn asked(&self) -> u64 {
        *self.call_off.0.borrow()
    }

    /// Whether one waits for its answer.
    pub(super) fn is_waiting(&self) -> bool {
        self.asked() > self.answered
    }

    /// Comes back once one does.
    pub(super) fn waiting(&self) -> impl Future<Output = ()> + use<> {
        let (mut asked, answered) = (self.call_off.0.subscribe(), self.answered);
        async move {
            if asked.wait_for(|asked| *asked > answered).await.is_err() {
                // Nobody can ask any more.
                pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_asked_is_seen_by_whoever_looks_later() {
        let mut calls = Calls::default();
        assert!(!calls.is_waiting());
        let waiting = tokio::spawn(calls.waiting());
        calls.call_off().ask();
        waiting.await.unwrap();
        calls.waiting().await;
        assert!(calls.is_waiting());
        calls.answer();
        assert!(!calls.is_waiting());
    }
}
