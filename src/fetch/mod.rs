//! What the control plane asks of servers that belong to neither side: an issuer's keys, a token's standing.
//!
//! What comes back decides who gets in. So it comes over https, or over loopback; a certificate is always judged;
//! nothing is followed elsewhere; and whatever the other side does, it costs bounded memory and bounded time.
//! Connections are hyper's: the answers are small, and nobody's requests lie on this way.

mod connect;
mod exchange;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::Instant;

use self::connect::Roots;
use self::exchange::Connection;
use crate::config::problem::Problem;
use crate::config::settings::{At, FetchUrl};
use crate::config::source::Span;
use crate::upstream::tls::SystemRoots;

/// How many idle connections are kept, and for how long.
const MAX_KEPT: usize = 64;
const KEPT_FOR: Duration = Duration::from_secs(30);

/// Asks servers that one set of authorities vouches for.
pub struct Client {
    roots: Option<Roots>,
    /// Connections that lie idle, the youngest last. Locked for a push or a pop, on the control plane alone.
    kept: Mutex<Vec<Kept>>,
}

struct Kept {
    connection: Connection,
    to: (bool, crate::config::settings::Authority),
    since: Instant,
}

/// One question.
pub struct Question<'a> {
    pub url: &'a FetchUrl,
    pub what: What<'a>,
    /// Kept out of every message.
    pub authorization: Option<HeaderValue>,
    /// The longest body that is taken, in bytes.
    pub max_body: usize,
    /// For all of it: name, connection, answer.
    pub timeout: Duration,
}

/// What is asked.
pub enum What<'a> {
    Get,
    /// `application/x-www-form-urlencoded`. Asked again on a new connection where a kept one breaks: to be used for
    /// questions that change nothing. It is made anew then, since what proves who asks may count only once.
    PostForm(&'a (dyn Fn() -> Result<Bytes, String> + Sync)),
}

/// Whether a client has to judge certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    Always,
    /// What is asked in the clear may name a place that is not.
    Perhaps,
    Never,
}

impl Tls {
    /// To ask nobody else.
    pub fn to(url: &FetchUrl) -> Tls {
        if url.https { Tls::Always } else { Tls::Never }
    }
}

/// An answer that came whole. It may have any status but a redirect.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is none. Tells nothing that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchError {
    /// The name has no address (that may be used).
    Lookup(String),
    Connect(String),
    /// The certificate is not to be trusted, or TLS failed otherwise.
    Tls(String),
    Timeout(Duration),
    Redirect(StatusCode),
    /// More than this many bytes.
    TooLarge(usize),
    /// A coding that was not asked for.
    Coded,
    Broken(String),
    /// There is no question to put.
    Unasked(String),
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FetchError::Lookup(why) => write!(f, "its name has no address: {why}"),
            FetchError::Connect(why) => write!(f, "it cannot be connected to: {why}"),
            FetchError::Tls(why) => write!(f, "TLS failed: {why}"),
            FetchError::Timeout(after) => write!(f, "it gave no answer in {after:?}"),
            FetchError::Redirect(status) => {
                write!(f, "it redirects ({}), which is not followed: name the URL itself", status.as_u16())
            }
            FetchError::TooLarge(most) => write!(f, "its answer is longer than {most} bytes"),
            FetchError::Coded => f.write_str("its answer is compressed, which was not asked for"),
            FetchError::Broken(why) => write!(f, "it gave no whole answer: {why}"),
            FetchError::Unasked(why) => write!(f, "it could not be asked: {why}"),
        }
    }
}

impl std::error::Error for FetchError {}

impl Client {
    /// Reads `ca`, or the system's authorities where that is absent and they are of use. Hands out `before`, and with
    /// it the connections, when these say the same. `None`: the problems are told at `span` or at `ca`.
    pub fn build(
        ca: Option<&At<std::path::PathBuf>>,
        tls: Tls,
        span: &Span,
        system: &SystemRoots,
        before: Option<&Arc<Client>>,
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<Client>> {
        let roots = match (ca, tls) {
            (None, Tls::Never) => None,
            // Without any, that is told should a certificate have to be judged.
            (None, Tls::Perhaps) => Roots::read(None, span, system, &mut Vec::new()),
            (Some(_), _) | (None, Tls::Always) => Some(Roots::read(ca, span, system, problems)?),
        };
        if let Some(before) = before
            && before.roots == roots
        {
            return Some(Arc::clone(before));
        }
        Some(Arc::new(Client { roots, kept: Mutex::default() }))
    }

    /// Must run inside a tokio runtime.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn ask(&self, question: &Question<'_>) -> Result<Answer, FetchError> {
        let answer = tokio::time::timeout(question.timeout, self.exchange(question)).await;
        answer.unwrap_or(Err(FetchError::Timeout(question.timeout)))
    }

    async fn exchange(&self, question: &Question<'_>) -> Result<Answer, FetchError> {
        if let Some(mut connection) = self.take(question.url) {
            match connection.send(exchange::request(question)?, question.max_body).await {
                // The other side may have closed it at any moment: that says nothing yet. A new connection does; other
                // kept ones would most likely break too, each of them with the question on it.
                Err(FetchError::Broken(_)) => {}
                Err(error) => return Err(error),
                Ok(answer) => return self.finish(question.url, connection, answer),
            }
        }
        let stream = connect::connect(question.url, self.roots.as_ref()).await?;
        let mut connection = Connection::over(stream).await?;
        let answer = connection.send(exchange::request(question)?, question.max_body).await?;
        self.finish(question.url, connection, answer)
    }

    fn finish(&self, url: &FetchUrl, connection: Connection, answer: Answer) -> Result<Answer, FetchError> {
        if !connection.is_closed() {
            let kept = Kept { connection, to: (url.https, url.authority.clone()), since: Instant::now() };
            let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|kept| kept.is_fresh());
            if all.len() < MAX_KEPT {
                all.push(kept);
            }
        }
        if answer.status.is_redirection() {
            return Err(FetchError::Redirect(answer.status));
        }
        Ok(answer)
    }

    fn take(&self, url: &FetchUrl) -> Option<Connection> {
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|kept| kept.is_fresh());
        let at = all.iter().rposition(|kept| kept.to.0 == url.https && kept.to.1 == url.authority)?;
        Some(all.remove(at).connection)
    }
}

impl Kept {
    fn is_fresh(&self) -> bool {
        !self.connection.is_closed() && self.since.elapsed() < KEPT_FOR
    }
}
