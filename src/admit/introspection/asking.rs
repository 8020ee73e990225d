//! Who asks: one task of the control plane for each introspection server, so that what many requests share needs no
//! lock. It owns the cache, knows which questions are under way, and keeps the rest in a line.
//!
//! Whoever invents tokens fills the line and no more: the server behind never sees more than `max_in_flight` questions,
//! what was said is remembered, and tokens that were active before go first.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::super::digest::Digest;
use super::answer::{Failed, Outcome, Refused, Whose};
use super::away::Away;
use super::cache::{Cache, Cached, Said, Until};
use super::standing::Standing;

/// Requests that wait for one token.
const MAX_WAITING: usize = 4096;
/// Questions that wait, for each that may be under way.
const LINE: usize = 16;
/// How long nobody asks again about a token of which the server could not say anything.
const UNKNOWN: Duration = Duration::from_secs(1);

/// A request wants to know.
pub(super) struct Ask {
    pub(super) digest: Digest,
    pub(super) token: Arc<str>,
    pub(super) answer: oneshot::Sender<Told>,
}

/// What a request is told, and how long it holds.
pub(super) type Told = (Said, Until);

/// Puts one question to the server.
pub(super) trait Server: Send + Sync + 'static {
    fn ask(&self, token: Arc<str>) -> impl Future<Output = Outcome> + Send;
}

pub(super) struct Bounds {
    pub(super) max_in_flight: usize,
    pub(super) cache: Duration,
}

/// See the module.
pub(super) struct Asking<S> {
    server: Arc<S>,
    bounds: Bounds,
    standing: Arc<Standing>,
    cache: Cache,
    /// Under way or in line.
    questions: HashMap<Digest, Question>,
    under_way: JoinSet<Outcome>,
    tasks: HashMap<Id, Digest>,
    lines: Lines,
    away: Away,
}

/// Questions that wait.
#[derive(Default)]
struct Lines {
    /// Of tokens that were active before: these go first.
    known: VecDeque<Digest>,
    unknown: VecDeque<Digest>,
}

impl Lines {
    fn next(&mut self) -> Option<Digest> {
        self.known.pop_front().or_else(|| self.unknown.pop_front())
    }
}

struct Question {
    token: Arc<str>,
    waiting: Vec<oneshot::Sender<Told>>,
}

impl<S: Server> Asking<S> {
    /// Answers until nobody can ask any more.
    pub(super) async fn run(server: Arc<S>, bounds: Bounds, standing: Arc<Standing>, mut asks: mpsc::Receiver<Ask>) {
        let mut asking = Asking {
            server,
            bounds,
            standing,
            cache: Cache::default(),
            questions: HashMap::new(),
            under_way: JoinSet::new(),
            tasks: HashMap::new(),
            lines: Lines::default(),
            away: Away::default(),
        };
        loop {
            tokio::select! {
                // What is done makes room for what is asked.
                biased;
                Some(done) = asking.under_way.join_next_with_id() => asking.done(done),
                ask = asks.recv() => match ask {
                    Some(ask) => asking.take(ask),
                    None => break,
                },
            }
        }
        // The last snapshot is gone; its last requests are still answered.
        while let Some(done) = asking.under_way.join_next_with_id().await {
            asking.done(done);
        }
    }

    fn take(&mut self, ask: Ask) {
        let line = match self.cache.get(&ask.digest) {
            Cached::Holds(said, until) => return tell(ask.answer, &said, until),
            Cached::Once => &mut self.lines.known,
            Cached::Nothing => &mut self.lines.unknown,
        };
        if let Some(question) = self.questions.get_mut(&ask.digest) {
            if question.waiting.len() >= MAX_WAITING {
                question.waiting.retain(|waiting| !waiting.is_closed());
            }
            if question.waiting.len() >= MAX_WAITING {
                return unknown(ask.answer, "too many requests wait for one token");
            }
            return question.waiting.push(ask.answer);
        }
        if let Some(why) = self.away.forbids(Instant::now(), self.under_way.is_empty()) {
            return unknown(ask.answer, why);
        }
        let free = self.under_way.len() < self.bounds.max_in_flight;
        let question = Question { token: ask.token, waiting: vec![ask.answer] };
        if free {
            return self.put(ask.digest, question);
        }
        if line.len() < self.bounds.max_in_flight.saturating_mul(LINE) {
            line.push_back(ask.digest);
            self.questions.insert(ask.digest, question);
        } else {
            let why = "too many tokens wait for the introspection server (see max_in_flight)";
            question.waiting.into_iter().for_each(|waiting| unknown(waiting, why));
        }
    }

    /// Puts the question to the server.
    fn put(&mut self, digest: Digest, question: Question) {
        let (server, token) = (Arc::clone(&self.server), Arc::clone(&question.token));
        self.standing.metrics.asks();
        let task = self.under_way.spawn(async move { server.ask(token).await });
        self.tasks.insert(task.id(), digest);
        self.questions.insert(digest, question);
    }

    fn done(&mut self, done: Result<(Id, Outcome), JoinError>) {
        let (id, outcome) = match done {
            Ok(done) => done,
            // Nothing cancels it, so it panicked: a defect, but no reason to stop here.
            Err(error) => {
                let why = "the question failed within the gateway".to_owned();
                (error.id(), Outcome::Failed(Failed { why, whose: Whose::Token }))
            }
        };
        let Some(digest) = self.tasks.remove(&id) else { return };
        let waiting = self.questions.remove(&digest).map(|question| question.waiting).unwrap_or_default();
        self.standing.heard(&outcome);
        let trips = match &outcome {
            Outcome::Failed(Failed { why, whose: Whose::Server }) => self.away.failed(Instant::now(), why),
            // Whatever it says of the token, it is there. Were that not enough, whoever shows one token after another
            // that it cannot cope with would be the one to find out after each pause, and nobody else would ever be
            // asked about.
            Outcome::Failed(Failed { whose: Whose::Token, .. }) | Outcome::Active { .. } | Outcome::Refused(_) => {
                self.away.answered();
                false
            }
        };
        let (said, until) = self.said(outcome);
        for waiting in waiting {
            tell(waiting, &said, until);
        }
        self.cache.put(digest, said, until);
        if trips {
            self.dismiss();
        }
        self.next();
    }

    fn said(&self, outcome: Outcome) -> (Said, Until) {
        let now = Instant::now();
        let after = |duration: Duration| now.checked_add(duration).unwrap_or(now);
        match outcome {
            Outcome::Active { identity, until } => {
                (Said::Active(identity), Until { at_most: after(self.bounds.cache), wall: until })
            }
            Outcome::Refused(Refused { why, until }) => {
                (Said::Refused(why), Until { at_most: after(self.bounds.cache), wall: until })
            }
            Outcome::Failed(Failed { why, whose: _ }) => {
                (Said::Unknown(Arc::from(why)), Until { at_most: after(UNKNOWN), wall: None })
            }
        }
    }

    /// The next in line, if somebody still waits for it.
    fn next(&mut self) {
        while self.under_way.len() < self.bounds.max_in_flight {
            let Some(digest) = self.lines.next() else { return };
            let Some(question) = self.questions.remove(&digest) else { continue };
            if question.waiting.iter().any(|waiting| !waiting.is_closed()) {
                self.put(digest, question);
            }
        }
    }

    /// The server is away: nobody waits in vain.
    fn dismiss(&mut self) {
        let why = self.away.why();
        while let Some(digest) = self.lines.next() {
            let waiting = self.questions.remove(&digest).map(|question| question.waiting).unwrap_or_default();
            waiting.into_iter().for_each(|waiting| unknown(waiting, &why));
        }
    }
}

/// Whoever waited may be gone.
fn tell(waiting: oneshot::Sender<Told>, said: &Said, until: Until) {
    let _ = waiting.send((said.clone(), until));
}

fn unknown(waiting: oneshot::Sender<Told>, why: impl AsRef<str>) {
    tell(waiting, &Said::Unknown(Arc::from(why.as_ref())), Until { at_most: Instant::now(), wall: None });
}

#[cfg(test)]
mod tests;
