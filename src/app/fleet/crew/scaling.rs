//! As many workers as there is work.

use tokio::time::Instant;

use super::Crew;
use crate::app::fleet::Phase;
use crate::app::scale::Seen;

impl Crew {
    /// Whether the number of workers follows the load now.
    pub(super) fn scales(&self) -> bool {
        self.scale.is_on() && !self.leaving && self.stage.is_on(self.id)
    }

    pub(super) fn somebody_waits(&mut self) {
        if self.scales() {
            self.scale.begin();
        } else {
            // It is for the fleet that is on by now.
            self.queue.lengthened.notify_one();
        }
    }

    pub(super) fn rescale(&mut self) {
        let wanted = self.scale.look(self.seen(), Instant::now());
        self.want(wanted);
    }

    pub(super) fn seen(&self) -> Seen {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let servers = self.servers();
        Seen {
            wanted: self.wanted,
            ready: self.ready(),
            starting: self.count(|member| member.phase == Phase::Starting),
            waiting: count(self.queue.len()),
            busy: count(servers.iter().map(|server| server.busy()).fold(0, usize::saturating_add)),
            slots: servers.iter().filter_map(|server| server.slot_count()).map(count).min(),
        }
    }

    pub(super) fn want(&mut self, wanted: u32) {
        let (app, release) = (&*self.launch.app.name, self.launch.release);
        let before = std::mem::replace(&mut self.wanted, wanted);
        if wanted > before {
            let waiting = self.queue.len();
            tracing::info!(app, release, workers = wanted, waiting, "more workers");
            self.fill();
        } else if wanted < before {
            self.thin_out();
        }
    }
}
