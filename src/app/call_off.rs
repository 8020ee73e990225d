//! A rollback that is asked for while a release is under way calls that off: whoever asks need not wait for its end, nor
//! learn which of the two it undoes.

use std::future::pending;
use std::sync::Arc;

use tokio::sync::watch;

/// How many rollbacks were asked for. They are counted, so that none is missed by whoever looks later.
#[derive(Clone, Debug, Default)]
pub(super) struct CallOff(Arc<watch::Sender<u64>>);

impl CallOff {
    /// A rollback is asked for.
    pub(super) fn ask(&self) {
        self.0.send_modify(|asked| *asked = asked.saturating_add(1));
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        *self.0.borrow()
    }

    /// Whether there are more than those that were answered.
    pub(super) fn is_asked(&self, answered: u64) -> bool {
        *self.0.borrow() > answered
    }

    /// Waits until there are.
    pub(super) fn asked(&self, answered: u64) -> impl Future<Output = ()> + use<> {
        let mut seen = self.0.subscribe();
        async move {
            if seen.wait_for(|asked| *asked > answered).await.is_err() {
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
    async fn a_rollback_is_seen_by_whoever_looks_later() {
        let call_off = CallOff::default();
        assert!(!call_off.is_asked(0));
        let waiting = tokio::spawn(call_off.asked(0));
        call_off.ask();
        waiting.await.unwrap();
        call_off.asked(0).await;
        assert!(call_off.is_asked(0) && !call_off.is_asked(1));
    }
}
