//! Opaque tokens, asked about at the server that issued them (RFC 7662).
//!
//! A worker first looks at what it has seen itself. Else it asks the one task of the control plane that talks to the
//! server ([`asking`]), over a bounded channel, and waits no longer than a question may take.

mod answer;
mod asking;
mod away;
mod cache;
mod proof;
mod standing;
#[cfg(test)]
pub(in crate::admit) mod testing;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use self::answer::{Failed, Outcome};
use self::asking::{Ask, Asking, Bounds, Server};
use self::cache::Said;
use self::proof::Proof;
pub use self::standing::Standing;
use super::auth::{Building, Failure, Judged, Offhand};
use super::digest::{Digest, Digested};
use super::jwt::token::MAX_TOKEN;
use super::verified::{Holds, Prover, Seen};
use crate::config::settings::IntrospectionSettings;
use crate::config::source::Span;
use crate::fetch::{Client, Question, Tls, What};
use crate::worker::Worker;

/// Bytes of an answer.
const MAX_ANSWER: usize = 64 * 1024;
/// Requests that the asking task has not seen yet.
const MAX_ASKS: usize = 1024;

const MALFORMED: Failure = Failure::Invalid("the token is malformed");

/// `kind = "introspection"`
pub struct Introspection {
    shared: Arc<Shared>,
}

/// What snapshots with the same settings share.
struct Shared {
    settings: IntrospectionSettings,
    client: Arc<Client>,
    /// Differs where the private key does.
    proves: Option<Digest>,
    prover: Prover,
    standing: Arc<Standing>,
    asks: mpsc::Sender<Ask>,
    /// Until it is run.
    unstarted: Mutex<Option<Task>>,
}

/// What is to be run on the control plane.
struct Task {
    server: Arc<Endpoint>,
    asks: mpsc::Receiver<Ask>,
    standing: Arc<Standing>,
}

impl Introspection {
    /// `span`: where problems are told that no file has.
    pub fn build(
        name: &Arc<str>,
        settings: &IntrospectionSettings,
        span: &Span,
        before: Option<&Introspection>,
        building: &mut Building<'_>,
    ) -> Option<Introspection> {
        let before = before.map(|before| &before.shared);
        let client = Client::build(
            settings.ca.as_ref(),
            Tls::to(&settings.url),
            span,
            building.system_roots,
            before.map(|before| &before.client),
            building.problems,
        );
        let proof = Proof::build(settings, building.problems);
        let (client, (proof, proves)) = (client?, proof?);
        if let Some(before) = before
            && before.settings == *settings
            && Arc::ptr_eq(&before.client, &client)
            && before.proves == proves
        {
            return Some(Introspection { shared: Arc::clone(before) });
        }
        let standing = Arc::new(Standing::new(name, building.metrics.introspection(name)));
        let (asks, received) = mpsc::channel(MAX_ASKS);
        let server =
            Endpoint { auth: Arc::clone(name), settings: settings.clone(), client: Arc::clone(&client), proof };
        let task = Task { server: Arc::new(server), asks: received, standing: Arc::clone(&standing) };
        let shared = Shared {
            settings: settings.clone(),
            client,
            proves,
            prover: Prover::new(),
            standing,
            asks,
            unstarted: Mutex::new(Some(task)),
        };
        Some(Introspection { shared: Arc::new(shared) })
    }

    /// How the server fares, for `/status`.
    pub fn standing(&self) -> &Standing {
        &self.shared.standing
    }

    /// What is to be run on the control plane for this to work: once, and until it ends by itself, which it does when
    /// the last snapshot that needs it is gone.
    pub fn task(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let task = self.shared.unstarted.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let Task { server, asks, standing } = task;
        let settings = &server.settings;
        let bounds = Bounds { max_in_flight: settings.max_in_flight.get(), cache: settings.cache };
        Some(Asking::run(server, bounds, standing, asks))
    }

    /// Whoever showed this token not long ago.
    pub fn known(&self, worker: &Worker, token: &Digested<'_>) -> Option<Seen> {
        if token.text().len() > MAX_TOKEN {
            return None;
        }
        worker.admission.verified.get(self.shared.prover, 0, token.mark())
    }

    /// Only the server can say.
    pub fn judge_offhand(&self, token: &Digested<'_>) -> Offhand {
        match text(token.text()) {
            Some(_) => Offhand::Elsewhere(self.shared.settings.url.to_string()),
            None => Offhand::Judged(Err(MALFORMED)),
        }
    }

    pub async fn judge(&self, worker: &Worker, token: &Digested<'_>) -> Judged {
        // What is no token needs no answer.
        let text = text(token.text()).ok_or(MALFORMED)?;
        let (answer, told) = oneshot::channel();
        let ask = Ask { digest: *token.digest(), token: Arc::from(text), answer };
        let full = |_| Failure::Unavailable("too many requests ask for the standing of their tokens".to_owned());
        self.shared.asks.try_send(ask).map_err(full)?;
        let timeout = self.shared.settings.timeout;
        let (said, until) = match tokio::time::timeout(timeout, told).await {
            Ok(Ok(told)) => told,
            Ok(Err(_)) => return Err(Failure::Unavailable("the gateway is about to end".to_owned())),
            Err(_) => return Err(Failure::Unavailable(format!("nothing was heard of the token in {timeout:?}"))),
        };
        match said {
            Said::Active(identity) => {
                if let Some(at_most) = until.remaining() {
                    let holds = Holds { until: until.wall, at_most };
                    worker.admission.verified.put(self.shared.prover, 0, token.mark(), &identity, holds);
                }
                Ok(identity)
            }
            Said::Refused(why) => Err(Failure::Invalid(why)),
            Said::Unknown(why) => Err(Failure::Unavailable(why.to_string())),
        }
    }
}

/// `b64token` of RFC 6750 section 2.1.
fn text(token: &[u8]) -> Option<&str> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    let whole = (1..=MAX_TOKEN).contains(&token.len()) && token.iter().all(plain);
    std::str::from_utf8(token).ok().filter(|_| whole)
}

/// The server itself.
struct Endpoint {
    auth: Arc<str>,
    settings: IntrospectionSettings,
    client: Arc<Client>,
    proof: Proof,
}

impl Endpoint {
    /// RFC 7662 section 2.1
    fn form(&self, token: &str) -> Result<Bytes, String> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("token", token).append_pair("token_type_hint", "access_token");
        self.proof.add_to(&mut form)?;
        Ok(Bytes::from(form.finish()))
    }
}

impl Server for Endpoint {
    async fn ask(&self, token: Arc<str>) -> Outcome {
        let form = || self.form(&token);
        let question = Question {
            url: &self.settings.url,
            what: What::PostForm(&form),
            authorization: self.proof.authorization(),
            max_body: MAX_ANSWER,
            timeout: self.settings.timeout,
        };
        match self.client.ask(&question).await {
            Ok(answer) => answer::judge(&answer, &self.auth, &self.settings, SystemTime::now()),
            Err(error) => Outcome::Failed(Failed::of(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_token_is_not_asked_about() {
        for token in ["abc", "a.b.c", "A-z_0~9+/=="] {
            assert_eq!(text(token.as_bytes()), Some(token));
        }
        for token in [&b""[..], b"a b", b"a\0", b"\xff", b"a\"b", &[b'a'; MAX_TOKEN + 1]] {
            assert_eq!(text(token), None);
        }
    }
}
