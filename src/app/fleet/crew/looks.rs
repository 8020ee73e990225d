//! Looking at workers while they run: what they take, and whether they are well. Those who are not are replaced.

use std::time::Duration;

use tokio::task::JoinError;
use tokio::time::Instant;

use super::{Crew, Looked, has_lived};
use crate::app::failure::Failure;
use crate::app::fleet::Phase;
use crate::app::fleet::care::{Finding, YOUNG};
use crate::app::fleet::member::{Farewell, Member};
use crate::app::tally::RestartReason;
use crate::app::usage::Tree;
use crate::upstream::health::State;

/// How long a worker that listens no more may take to end before another is started beside it.
const GONE: Duration = Duration::from_millis(300);

impl Crew {
    /// Begins a look at all workers, unless one is under way.
    pub(super) fn look(&mut self) {
        if !self.looking.is_empty() {
            return;
        }
        let trees = self.members.iter_mut().filter_map(|(number, member)| Some((*number, member.tree.take()?)));
        let trees: Vec<(u32, Tree)> = trees.collect();
        if trees.is_empty() {
            return;
        }
        self.looking.spawn_blocking(|| {
            let look = |(number, mut tree): (u32, Tree)| {
                let usage = tree.look();
                (number, tree, usage)
            };
            trees.into_iter().map(look).collect()
        });
    }

    pub(super) fn have_looked(&mut self, looked: Result<Looked, JoinError>) {
        let looked = match looked {
            Ok(looked) => looked,
            Err(error) => {
                tracing::error!(app = &*self.launch.app.name, %error, "workers could not be looked at: a defect");
                return;
            }
        };
        let elapsed = std::mem::replace(&mut self.looked, Instant::now()).elapsed();
        let mut used = Duration::ZERO;
        for (number, tree, usage) in looked {
            let Some(member) = self.members.get_mut(&number) else { continue };
            member.tree = Some(tree);
            let Some(usage) = usage else { continue };
            let before = member.usage.replace(usage);
            let cpu = usage.cpu.saturating_sub(before.map_or(Duration::ZERO, |before| before.cpu));
            self.stage.tally.used(cpu);
            if member.phase == Phase::Ready && before.is_some() {
                used = used.saturating_add(cpu);
            }
            self.care_for_memory(number, usage.resident);
            if usage.lost_children {
                self.care_for_lost_children(number);
            }
        }
        if self.scales() && !elapsed.is_zero() {
            let cores = used.as_secs_f64() / elapsed.as_secs_f64() * 1000.0;
            // A machine has fewer cores than this can hold.
            let wanted = self.scale.measured(self.seen(), cores as u32, Instant::now());
            self.want(wanted);
        }
        self.fill();
    }

    fn care_for_memory(&mut self, number: u32, resident: u64) {
        let Some(limit) = self.launch.app.settings.memory_limit else { return };
        let Some(member) = self.members.get_mut(&number) else { return };
        let finding = member.watched.takes(resident, limit);
        let (app, release) = (&*self.launch.app.name, self.launch.release);
        let (mebibytes, most) = (in_mebibytes(resident), in_mebibytes(limit.get()));
        let age = member.began.elapsed();
        match finding {
            Finding::Fine => {}
            Finding::Large if member.phase == Phase::Ready && member.condemned.is_none() => {
                member.condemned = Some(RestartReason::Memory);
                let remedy = if age < YOUNG {
                    "A worker takes that much soon after its start: raise memory_limit, or see what the app loads."
                } else {
                    "See what the app keeps; a limit that is seldom reached is fine."
                };
                tracing::warn!(
                    app,
                    release,
                    worker = number,
                    mebibytes,
                    memory_limit = most,
                    age = age.as_secs(),
                    remedy,
                    "worker past memory_limit: another takes its place"
                );
            }
            Finding::Large => {}
            Finding::Huge => self.kill(number, mebibytes, most),
        }
    }

    /// Ends a worker at once, with all that it runs: before it takes the memory of everybody else.
    fn kill(&mut self, number: u32, mebibytes: u64, most: u64) {
        let Some(member) = self.members.get_mut(&number) else { return };
        if std::mem::replace(&mut member.killed, true) {
            return;
        }
        let (phase, lived, runs) = (member.phase, has_lived(member), member.in_flight());
        member.phase = Phase::Leaving;
        // Nobody is sent there any more before it ends.
        self.publish();
        if let Some(member) = self.members.get_mut(&number) {
            member.leave(&self.stage, Farewell::at_once());
        }
        let why = format!(
            "it took {mebibytes} MiB, more than twice its memory_limit of {most} MiB, and was killed with the {runs} \
             requests that it ran"
        );
        match phase {
            Phase::Starting | Phase::Ready => {
                self.has_failed(number, Failure::new(why), lived, RestartReason::Memory);
                self.publish();
            }
            // Another has its place already.
            Phase::Leaving => {
                let (app, release) = (&*self.launch.app.name, self.launch.release);
                tracing::warn!(app, release, worker = number, reason = why, "worker killed");
            }
        }
    }

    /// A server that starts its own worker again and again, to no avail, will not see that itself.
    fn care_for_lost_children(&mut self, number: u32) {
        let server = self.launch.environment.server;
        let Some(member) = self.members.get_mut(&number).filter(|member| member.is_wanted()) else { return };
        if !server.has_own_worker() {
            return;
        }
        self.stage.tally.restarted(RestartReason::ByServer);
        let answers = member.server.as_ref().map_or(0, |server| server.health.answers());
        if member.watched.has_lost_children(answers, Instant::now()) {
            member.fail(format!("{}'s own worker process ended again and again", server.as_str()));
        }
    }

    /// A worker that listens no more while its process stays gets nothing any more, so another is started now: it may
    /// finish what it has for a long time.
    pub(super) fn care_for_gone(&mut self) {
        let gone = self.members.iter().filter(|(_, member)| is_gone(member));
        for number in gone.map(|(number, _)| *number).collect::<Vec<u32>>() {
            let Some(member) = self.members.get_mut(&number) else { continue };
            let (runs, lived) = (member.in_flight(), has_lived(member));
            let why =
                format!("it does not listen any more, and its process stays, with the {runs} requests that it runs");
            member.leave(&self.stage, Farewell::unhurried(self.stage.grace()));
            self.has_failed(number, Failure::new(why), lived, RestartReason::Exited);
        }
        self.publish();
        self.fill();
    }

    /// When it is to be seen to, if somebody is gone: most end within a moment, and then say more.
    pub(super) fn notice_gone(&mut self) {
        if self.gone.is_none() && self.members.values().any(is_gone) {
            self.gone = Some(Instant::now() + GONE);
        }
    }

    /// A worker that checks found down, and that answers nothing, will not come back by itself.
    pub(super) fn care_for_health(&mut self) {
        let (app, release) = (&*self.launch.app.name, self.launch.release);
        for (number, member) in &mut self.members {
            let Some(server) = member.server.as_ref().filter(|_| member.phase == Phase::Ready) else { continue };
            let is_down = server.health.state() == State::Down;
            let is_too_long = member.watched.checked(is_down, server.health.answers(), Instant::now());
            if is_too_long && member.condemned.is_none() {
                member.condemned = Some(RestartReason::Health);
                let reason = server.health.report().reason.unwrap_or_default();
                tracing::warn!(
                    app,
                    release,
                    worker = number,
                    pid = member.pid,
                    reason,
                    runs = server.in_flight(),
                    "worker down and silent: another takes its place"
                );
            }
        }
    }
}

fn is_gone(member: &Member) -> bool {
    member.phase == Phase::Ready && member.server.as_ref().is_some_and(|server| server.health.is_gone())
}

fn in_mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1024 * 1024)
}
