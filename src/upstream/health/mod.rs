//! Whether a server may take requests: active probes, passive ejection, slow return. Busy is not dead.
//!
//! What happened is judged by `machine`, under a lock that only failures, probes and the first answer after them
//! take. Its verdict is published as one number, the gate, which is all that choosing a server reads.

mod machine;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::StatusCode;

use super::clock;
use crate::observe::metrics::ServerMetrics;
use crate::request::rejection::Cause;
use machine::{Change, Machine, RAMP};
pub(super) use machine::{Rules, Verdict};

/// The gate of a server that takes its full share.
const OPEN: u64 = 0;
/// The gate of a server that active checks found down. Any other value is the time at which an ejection ends.
const DOWN: u64 = u64::MAX;
/// The gate of a worker that has gone; nothing opens it again.
const GONE: u64 = u64::MAX - 1;
/// A full share, in thousandths.
pub(super) const FULL: u64 = 1000;

/// What is known of a server's health. Read on every choice, so atomics only.
pub struct Health {
    upstream: Arc<str>,
    server: Arc<str>,
    metrics: Arc<ServerMetrics>,
    gate: AtomicU64,
    /// Responses so far. That it moves is what tells busy from dead.
    answers: AtomicU64,
    /// How many of them were of the 5xx.
    errors: AtomicU64,
    /// Requests that failed because this server gave no answer that could be passed on.
    unanswered: AtomicU64,
    /// Whether the machine wants to hear of the next answer.
    listening: AtomicBool,
    /// Whether an ejected server was given a request because there was no other.
    on_trial: AtomicBool,
    machine: Mutex<Machine>,
}

/// How an attempt failed, as far as the server's health is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connection could not be made.
    Connect,
    /// The connection broke, or what came was not HTTP, before a response was complete. Not a kept connection that
    /// the server had closed before the request reached it: servers may do that.
    Broken,
    /// No connection or no response head in time: the server may be busy.
    Timeout,
}

impl Failure {
    /// What an attempt that ended for `cause` says of the server; `None` when it says nothing.
    pub fn of(cause: Cause) -> Option<Failure> {
        match cause {
            Cause::UpstreamConnectRefused | Cause::UpstreamConnectFailed | Cause::UpstreamTlsFailed => {
                Some(Failure::Connect)
            }
            Cause::UpstreamClosedEarly
            | Cause::UpstreamCutShort
            | Cause::UpstreamStreamReset
            | Cause::UpstreamInvalidResponse => Some(Failure::Broken),
            // A full listen backlog shows as a connection that takes for ever.
            Cause::UpstreamConnectTimeout
            | Cause::UpstreamSendTimeout
            | Cause::UpstreamTimeout
            | Cause::UpstreamBodyTimeout => Some(Failure::Timeout),
            Cause::NoHealthyServer
            | Cause::AppNotRunning
            | Cause::QueueFull
            | Cause::QueueTimeout
            | Cause::Overloaded
            | Cause::UpstreamUnresolved
            | Cause::UpstreamKeptConnectionClosed
            | Cause::StreamSilent
            | Cause::UpstreamHeadersTooLarge => None,
            // Whatever the client or the gateway is to blame for.
            Cause::MalformedHead
            | Cause::AmbiguousFraming
            | Cause::MalformedBody
            | Cause::BadHost
            | Cause::BadTarget
            | Cause::ClientClosed
            | Cause::HeaderTimeout
            | Cause::BodyTimeout
            | Cause::ClientStalled
            | Cause::TargetTooLong
            | Cause::HeadersTooLarge
            | Cause::UwsgiVariablesTooLarge
            | Cause::BodyTooLarge
            | Cause::BodyPastBuffer
            | Cause::UploadTooSlow
            | Cause::ExpectationFailed
            | Cause::MethodRefused
            | Cause::VersionNotSupported
            | Cause::NoRoute
            | Cause::MethodNotAllowed
            | Cause::AddressDenied
            | Cause::FileNotFound
            | Cause::FileForbidden
            | Cause::FileUnreadable
            | Cause::FileChanged
            | Cause::PreconditionFailed
            | Cause::RangeNotSatisfiable
            | Cause::InternalFileRefused
            | Cause::InternalFileMissing
            | Cause::AmbiguousCredentials
            | Cause::Unauthenticated
            | Cause::InvalidCredentials
            | Cause::OriginRefused
            | Cause::RoleMissing
            | Cause::ScopeMissing
            | Cause::AuthUnavailable
            | Cause::RateLimited
            | Cause::TooManyAtOnce
            | Cause::LimitStoreUnavailable
            | Cause::UnsupportedMediaType
            | Cause::CodedBody
            | Cause::InvalidRequest
            | Cause::UnknownOperation
            | Cause::UnknownMethod
            | Cause::DocumentUnavailable
            | Cause::ValidationOverloaded
            | Cause::TooManyConnections
            | Cause::TooManyUpgraded
            | Cause::UpgradeNotSupported
            | Cause::PlainHttp
            | Cause::TempLimitReached
            | Cause::DiskFull
            | Cause::TempFileFailed
            | Cause::ShutDown
            | Cause::Internal => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Failure::Connect => "it could not be connected to",
            Failure::Broken => "it broke connections off or sent what is not HTTP",
            Failure::Timeout => "it answered nothing in time",
        }
    }
}

/// A server's state as the outside sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Takes its full share.
    Up,
    /// Active checks failed, or nobody listens any more.
    Down,
    /// Requests failed; left alone for a while.
    Ejected,
    /// Takes a growing share after having been down or ejected.
    Returning,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Up => "up",
            State::Down => "down",
            State::Ejected => "ejected",
            State::Returning => "returning",
        }
    }

    /// Whether requests are sent to it.
    pub fn is_usable(self) -> bool {
        match self {
            State::Up | State::Returning => true,
            State::Down | State::Ejected => false,
        }
    }
}

/// How much of its share a server may take at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// In thousandths, from 1 to [`FULL`].
    Usable(u64),
    Ejected,
    Down,
    /// It is a worker's, which listens no more and never will again: another will come in its place.
    Gone,
}

impl Health {
    pub(super) fn new(upstream: Arc<str>, server: Arc<str>, metrics: Arc<ServerMetrics>) -> Health {
        Health {
            upstream,
            server,
            metrics,
            gate: AtomicU64::new(OPEN),
            answers: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            listening: AtomicBool::new(false),
            on_trial: AtomicBool::new(false),
            machine: Mutex::new(Machine::new(clock::now())),
        }
    }

    /// A response head came.
    pub fn answered(&self, status: StatusCode) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        if status.is_server_error() {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        if self.listening.load(Ordering::Relaxed) {
            let on_trial = self.on_trial.load(Ordering::Relaxed);
            self.tell(|machine| machine.answered(on_trial, clock::now()));
        }
    }

    /// An attempt failed.
    pub fn failed(&self, failure: Failure) {
        let answers = self.answers.load(Ordering::Relaxed);
        self.tell(|machine| machine.failed(failure, answers, clock::now()));
    }

    /// A worker listens no more: it has ended, or is about to.
    pub(super) fn has_gone(&self) {
        let _machine = self.lock();
        self.gate.store(GONE, Ordering::Relaxed);
    }

    /// Whether it is down or gone.
    pub(super) fn takes_nothing(&self) -> bool {
        matches!(self.gate.load(Ordering::Relaxed), DOWN | GONE)
    }

    pub fn is_gone(&self) -> bool {
        self.gate.load(Ordering::Relaxed) == GONE
    }

    /// The state of this moment.
    pub fn state(&self) -> State {
        if self.is_gone() { State::Down } else { self.lock().state(clock::now()) }
    }

    /// The state, why it is so, and since when.
    pub fn report(&self) -> Report {
        let now = clock::now();
        let machine = self.lock();
        let (state, since) = machine.state_since(now);
        let (state, reason) = match (self.is_gone(), state) {
            (true, _) => (State::Down, Some("it does not listen any more".to_owned())),
            (false, State::Up) => (state, None),
            (false, _) => (state, machine.reason().map(str::to_owned)),
        };
        let age = Duration::from_millis(now.saturating_sub(since));
        let since = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        Report { state, reason, since }
    }

    /// Whether active checks are in force and the first has not come back yet.
    pub(super) fn is_unproven(&self) -> bool {
        self.lock().is_unproven()
    }

    /// Active checks begin, or begin again with other settings.
    pub(super) fn check(&self) {
        self.tell(Machine::check);
    }

    /// No active checks any more: only requests tell.
    pub(super) fn unchecked(&self) {
        self.tell(|machine| machine.unchecked(clock::now()));
    }

    /// A probe that began at `began` came back.
    pub(super) fn probed(&self, verdict: Verdict, rules: Rules, began: u64) {
        self.tell(|machine| machine.probed(verdict, rules, began, clock::now()));
    }

    /// Responses of the 5xx so far.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// A request failed on it for good.
    pub(super) fn left_unanswered(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// Those so far.
    pub fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Responses so far.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Whether it takes its full share; then no clock needs to be read.
    pub(super) fn is_open(&self) -> bool {
        self.gate.load(Ordering::Relaxed) == OPEN
    }

    /// What the server may take at `now`.
    pub(super) fn standing(&self, now: u64) -> Standing {
        let gate = self.gate.load(Ordering::Relaxed);
        match gate {
            OPEN => Standing::Usable(FULL),
            DOWN => Standing::Down,
            GONE => Standing::Gone,
            until if now < until => Standing::Ejected,
            until => {
                let elapsed = now.saturating_sub(until);
                if elapsed >= RAMP {
                    // Fully back: the next choice needs no clock. Whoever changed the gate meanwhile knows better.
                    let _ = self.gate.compare_exchange(gate, OPEN, Ordering::Relaxed, Ordering::Relaxed);
                    return Standing::Usable(FULL);
                }
                Standing::Usable((elapsed.saturating_mul(FULL) / RAMP).clamp(FULL / 10, FULL))
            }
        }
    }

    /// It gets a request although it is ejected, for lack of a better one.
    pub(super) fn try_out(&self) {
        self.on_trial.store(true, Ordering::Relaxed);
    }

    fn tell(&self, event: impl FnOnce(&mut Machine) -> Option<Change>) {
        let mut machine = self.lock();
        let change = event(&mut machine);
        if !self.is_gone() {
            self.gate.store(machine.gate(), Ordering::Relaxed);
        }
        self.listening.store(machine.is_listening(), Ordering::Relaxed);
        if let Some(change) = change {
            self.on_trial.store(false, Ordering::Relaxed);
            self.log(change, machine.reason().unwrap_or_default());
        }
    }

    fn log(&self, change: Change, reason: &str) {
        let (upstream, server) = (&*self.upstream, &*self.server);
        match change {
            Change::Ejected { seconds } => {
                self.metrics.ejected();
                tracing::warn!(
                    upstream,
                    server,
                    reason,
                    seconds,
                    remedy =
                        "See the server's own log; as long as there is another, it gets no requests for this time.",
                    "server ejected"
                );
            }
            Change::Down => {
                self.metrics.ejected();
                tracing::warn!(
                    upstream,
                    server,
                    reason,
                    remedy = "See the server's own log, and path, host, status and timeout in health of the upstream.",
                    "server down"
                );
            }
            Change::Up => tracing::info!(upstream, server, "server up"),
            Change::Returned => tracing::info!(upstream, server, "server answers again"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For `/status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub state: State,
    /// Why it is not up.
    pub reason: Option<String>,
    pub since: SystemTime,
}
