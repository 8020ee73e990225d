//! Active checks: a small request at every interval, and what its outcome says. One task a server, on the control
//! plane; a check begins when the one before it has ended.
//!
//! A Python worker that runs a request cannot answer a check. So a check that times out counts for nothing while
//! requests are being answered; only silence on both counts against a server.

use std::sync::Arc;
use std::time::Duration;

use http::header::USER_AGENT;
use http::{HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;

use super::clock;
use super::connect::connect;
use super::health::{Failure, Rules, Verdict};
use super::own::{Question, Rest};
use super::server::Server;
use crate::config::settings::{HealthSettings, UwsgiParams};

/// The shortest time from the beginning of one check to the next.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
/// A server that has requests in flight counts as busy for this long after its last sign of life, in milliseconds.
const BUSY_FOR: u64 = 10_000;
/// An answer's body is read this far and no longer than this, so that the server is not cut off in mid-write.
const MAX_BODY: usize = 64 * 1024;
const BODY_PATIENCE: Duration = Duration::from_millis(100);

/// What checks are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checks {
    pub(super) settings: HealthSettings,
    /// For servers that speak uwsgi.
    pub(super) params: UwsgiParams,
}

/// Checks `server` for ever.
pub(super) async fn run(server: Arc<Server>, checks: Checks) {
    server.health.check();
    let (settings, fields) = (&checks.settings, fields(&checks.settings));
    let rules = Rules { fall: settings.fall.get(), rise: settings.rise.get() };
    let mut activity = Activity::new(server.health.answers(), server.in_flight(), clock::now());
    loop {
        let began = Instant::now();
        let began_at = clock::now();
        activity.begin(server.health.answers(), began_at);
        let outcome = check(&server, &checks, &fields).await;
        let busy = activity.is_busy(server.health.answers(), server.in_flight(), clock::now());
        let verdict = verdict(outcome, settings, busy);
        if verdict == Verdict::Passed {
            activity.is_alive(clock::now());
        }
        server.health.probed(verdict, rules, began_at);
        tokio::time::sleep_until(began + jittered(settings.interval)).await;
    }
}

/// Within a tenth, so that checks of many servers and gateways do not fall into step.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64()).max(SHORTEST_INTERVAL)
}

/// What came of one check.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Status(StatusCode),
    TimedOut,
    Failed(String),
    /// The gateway ran short of something: it says nothing of the server.
    Unable,
}

fn verdict(outcome: Outcome, settings: &HealthSettings, busy: bool) -> Verdict {
    match outcome {
        Outcome::Status(status) if settings.status.iter().any(|range| range.contains(&status.as_u16())) => {
            Verdict::Passed
        }
        Outcome::Status(status) => {
            // Which Django, Starlette and Flask answer to a Host that they do not know.
            let help = if status == StatusCode::BAD_REQUEST { "; some services want a `host` in health" } else { "" };
            Verdict::Failed(format!("the check got status {}{help}", status.as_u16()))
        }
        Outcome::TimedOut if busy => Verdict::Busy,
        Outcome::TimedOut => Verdict::Failed(format!("the check got no answer in {:?}", settings.timeout)),
        Outcome::Failed(why) => Verdict::Failed(format!("the check failed: {why}")),
        Outcome::Unable => Verdict::Busy,
    }
}

/// What tells busy from dead: the movement of the count of answers.
struct Activity {
    /// The count when the previous check began, and when this one did.
    previous: u64,
    current: u64,
    /// The highest count that was seen, and when a sign of life was last noticed.
    seen: u64,
    alive_at: Option<u64>,
}

impl Activity {
    /// Of a server that has requests already, as after a reload, nothing is known of before: it counts as alive.
    fn new(answers: u64, in_flight: usize, now: u64) -> Activity {
        Activity { previous: answers, current: answers, seen: answers, alive_at: (in_flight > 0).then_some(now) }
    }

    fn begin(&mut self, answers: u64, now: u64) {
        self.previous = self.current;
        self.current = answers;
        self.notice(answers, now);
    }

    fn is_alive(&mut self, now: u64) {
        self.alive_at = Some(now);
    }

    /// Whether requests explain why a check got no answer: some were answered since the check before it began, or
    /// some are running and the server showed life not long ago.
    fn is_busy(&mut self, answers: u64, in_flight: usize, now: u64) -> bool {
        self.notice(answers, now);
        let recently = self.alive_at.is_some_and(|at| now.saturating_sub(at) <= BUSY_FOR);
        answers != self.previous || (in_flight > 0 && recently)
    }

    fn notice(&mut self, answers: u64, now: u64) {
        if answers != self.seen {
            self.seen = answers;
            self.alive_at = Some(now);
        }
    }
}

/// The fields that a check sends.
fn fields(settings: &HealthSettings) -> Vec<(HeaderName, HeaderValue)> {
    let mut fields = settings.headers.clone();
    if !fields.iter().any(|(name, _)| name == USER_AGENT) {
        fields.push((USER_AGENT, agent()));
    }
    fields
}

fn agent() -> HeaderValue {
    HeaderValue::from_static(concat!("passerelle/", env!("CARGO_PKG_VERSION")))
}

async fn check(server: &Server, checks: &Checks, fields: &[(HeaderName, HeaderValue)]) -> Outcome {
    let Checks { settings, params } = checks;
    let host = settings.host.as_ref().unwrap_or(&server.host);
    let question = Question { target: &settings.path, host, fields, params };
    exchange(server, &question, settings.timeout).await
}

async fn exchange(server: &Server, question: &Question<'_>, patience: Duration) -> Outcome {
    let exchange = async {
        let mut stream = match connect(server, patience).await {
            Ok(stream) => stream,
            Err(error) => {
                return match error.failure {
                    None => Outcome::Unable,
                    Some(Failure::Timeout) => Outcome::TimedOut,
                    Some(Failure::Connect | Failure::Broken) => Outcome::Failed(error.to_string()),
                };
            }
        };
        match question.ask(server, &mut stream).await {
            Ok((head, rest)) => {
                // Whether the rest comes or not, the answer is known.
                let _ = tokio::time::timeout(BODY_PATIENCE, skip(rest)).await;
                Outcome::Status(head.status)
            }
            Err(why) => Outcome::Failed(why),
        }
    };
    tokio::time::timeout(patience, exchange).await.unwrap_or(Outcome::TimedOut)
}

/// One check of a server that is not in use yet.
///
/// # Errors
/// Why it did not pass.
pub(super) async fn once(server: &Server, checks: &Checks) -> Result<(), String> {
    let outcome = check(server, checks, &fields(&checks.settings)).await;
    match verdict(outcome, &checks.settings, false) {
        Verdict::Passed => Ok(()),
        Verdict::Failed(why) => Err(why),
        Verdict::Busy => Err("the gateway could not connect".to_owned()),
    }
}

/// Gets `path` of a server: the status of its answer.
///
/// # Errors
/// Why there is none.
pub(super) async fn ask(
    server: &Server,
    path: &str,
    host: &HeaderValue,
    params: &UwsgiParams,
    patience: Duration,
) -> Result<StatusCode, String> {
    let fields = [(USER_AGENT, agent())];
    let question = Question { target: path, host, fields: &fields, params };
    match exchange(server, &question, patience).await {
        Outcome::Status(status) => Ok(status),
        Outcome::TimedOut => Err(format!("no answer in {patience:?}")),
        Outcome::Failed(why) => Err(why),
        Outcome::Unable => Err("the gateway could not connect".to_owned()),
    }
}

async fn skip(mut rest: Rest<'_>) {
    let mut left = MAX_BODY;
    while left > 0 {
        let Ok(Some(piece)) = rest.piece().await else { return };
        left = left.saturating_sub(piece.len());
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::health::State;
    use super::super::keeper::Task;
    use super::super::testing::{ANYONE, Backend, Behaviour, build, eventually, settings};
    use super::super::{Lease, Upstream};
    use super::*;
    use crate::config::settings::Balance;

    const OK: Behaviour = Behaviour::Answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    const BROKEN: Behaviour = Behaviour::Answer("HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n");

    fn checks(interval: u64, timeout: u64) -> Checks {
        let settings = HealthSettings {
            path: "/healthz".to_owned(),
            host: None,
            headers: Vec::new(),
            status: vec![200..=399],
            interval: Duration::from_millis(interval),
            timeout: Duration::from_millis(timeout),
            fall: NonZeroU32::new(3).unwrap(),
            rise: NonZeroU32::new(2).unwrap(),
        };
        Checks { settings, params: UwsgiParams::new() }
    }

    fn upstream_of(backend: &Backend) -> Upstream {
        build(&settings(&[(&backend.url(), 1)], Balance::LeastRequests), None)
    }

    fn start(upstream: &Upstream, checks: Checks) -> (Arc<Server>, Task) {
        let server = Arc::clone(&upstream.servers()[0]);
        let task = Task::spawn(run(Arc::clone(&server), checks));
        (server, task)
    }

    #[tokio::test]
    async fn a_server_goes_down_and_comes_back() {
        let backend = Backend::start(OK).await;
        let upstream = upstream_of(&backend);
        assert!(upstream.is_healthy(), "without checks a server is taken to be up");
        let (server, _task) = start(&upstream, checks(10, 1000));
        eventually("a check that passed", || backend.requests() > 0 && upstream.is_healthy()).await;
        backend.behave(BROKEN);
        eventually("down", || server.health.state() == State::Down).await;
        assert_eq!(server.status(1).reason.as_deref(), Some("the check got status 503"));
        assert!(upstream.choose(ANYONE, &[]).is_err());
        backend.behave(OK);
        eventually("back", || server.health.state() == State::Returning).await;
        assert!(upstream.choose(ANYONE, &[]).is_ok());
    }

    #[tokio::test]
    async fn the_request_is_what_the_settings_say() {
        let backend = Backend::start(OK).await;
        let upstream = upstream_of(&backend);
        let mut checks = checks(10, 1000);
        checks.settings.host = Some("orders.internal".parse().unwrap());
        checks.settings.headers = vec![("x-probe".parse().unwrap(), "1".parse().unwrap())];
        let (_server, _task) = start(&upstream, checks);
        eventually("a request", || backend.requests() > 0).await;
        let head = backend.heads.lock().unwrap()[0].clone();
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            head,
            format!(
                "GET /healthz HTTP/1.1\r\nhost: orders.internal\r\nx-probe: 1\r\nuser-agent: passerelle/{version}\r\n\
                 connection: close\r\n\r\n"
            )
        );
    }

    #[tokio::test]
    async fn by_default_a_check_asks_for_the_servers_own_host() {
        let backend = Backend::start(OK).await;
        let upstream = upstream_of(&backend);
        let (_server, _task) = start(&upstream, checks(10, 1000));
        eventually("a request", || backend.requests() > 0).await;
        let head = backend.heads.lock().unwrap()[0].clone();
        assert!(head.contains(&format!("host: 127.0.0.1:{}\r\n", backend.port)), "{head}");
    }

    async fn outcome(behaviour: Behaviour) -> Outcome {
        let backend = Backend::start(behaviour).await;
        let upstream = upstream_of(&backend);
        let server = Arc::clone(&upstream.servers()[0]);
        let checks = checks(10, 200);
        check(&server, &checks, &fields(&checks.settings)).await
    }

    #[tokio::test]
    async fn outcomes_are_told_apart() {
        assert_eq!(outcome(OK).await, Outcome::Status(StatusCode::from_u16(200).unwrap()));
        assert_eq!(outcome(BROKEN).await, Outcome::Status(StatusCode::from_u16(503).unwrap()));
        assert_eq!(outcome(Behaviour::Hang).await, Outcome::TimedOut);
        assert!(matches!(outcome(Behaviour::Close).await, Outcome::Failed(_)));
        assert!(matches!(outcome(Behaviour::Answer("not http\r\n\r\n")).await, Outcome::Failed(_)));
        // What no request would get either.
        for unusable in [
            "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(matches!(outcome(Behaviour::Answer(unusable)).await, Outcome::Failed(_)), "{unusable}");
        }
        let interim = Behaviour::Answer("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.0 204 No Content\r\n\r\n");
        assert_eq!(outcome(interim).await, Outcome::Status(StatusCode::from_u16(204).unwrap()));
        let cut = Behaviour::Answer("HTTP/1.1 200 OK\r\nContent-Len");
        assert!(matches!(outcome(cut).await, Outcome::Failed(_)));
    }

    #[tokio::test]
    async fn a_refused_connection_is_a_failure() {
        let backend = Backend::start(OK).await;
        let upstream = upstream_of(&backend);
        drop(backend);
        let server = Arc::clone(&upstream.servers()[0]);
        let checks = checks(10, 1000);
        let patience = std::time::Instant::now() + Duration::from_secs(5);
        // The listener is closed when its task has been dropped.
        loop {
            let outcome = check(&server, &checks, &[]).await;
            if matches!(&outcome, Outcome::Failed(why) if why.starts_with("upstream_connect_refused")) {
                return;
            }
            assert!(std::time::Instant::now() < patience, "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn checks_go_over_unix_sockets_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let answer = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut head).await.unwrap();
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            String::from_utf8(head).unwrap()
        });
        let url = format!("http+unix:{}", path.display());
        let upstream = build(&settings(&[(&url, 1)], Balance::LeastRequests), None);
        let server = Arc::clone(&upstream.servers()[0]);
        assert_eq!(check(&server, &checks(10, 2000), &[]).await, Outcome::Status(StatusCode::from_u16(200).unwrap()));
        assert!(answer.await.unwrap().contains("host: localhost\r\n"));
    }

    #[tokio::test]
    async fn a_hung_server_goes_down_but_a_busy_one_does_not() {
        let backend = Backend::start(OK).await;
        let upstream = upstream_of(&backend);
        let (server, _task) = start(&upstream, checks(10, 50));
        eventually("a check that passed", || backend.requests() > 0 && upstream.is_healthy()).await;
        backend.behave(Behaviour::Hang);
        // Requests are being answered all the while: checks time out and change nothing.
        let from = backend.requests();
        while backend.requests() < from + 10 {
            server.health.answered(http::StatusCode::OK);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert!(server.health.state().is_usable());
        // Nothing is answered any more, and nothing runs.
        eventually("down", || server.health.state() == State::Down).await;
        assert_eq!(server.status(1).reason.as_deref(), Some("the check got no answer in 50ms"));
    }

    #[tokio::test]
    async fn a_server_with_a_long_request_is_busy_for_a_while() {
        let backend = Backend::start(OK).await;
        let upstream = upstream_of(&backend);
        let (server, _task) = start(&upstream, checks(10, 50));
        eventually("a check that passed", || backend.requests() > 0 && upstream.is_healthy()).await;
        let lease = Lease::take(&server).unwrap();
        backend.behave(Behaviour::Hang);
        let from = backend.requests();
        eventually("checks that time out", || backend.requests() > from + 10).await;
        assert!(server.health.state().is_usable());
        drop(lease);
        eventually("down", || server.health.state() == State::Down).await;
    }

    #[test]
    fn activity_tells_busy_from_dead() {
        assert!(Activity::new(7, 2, 1_000).is_busy(7, 2, 2_000), "it had work when its checks began");
        let mut activity = Activity::new(7, 0, 1_000);
        activity.begin(7, 1_000);
        assert!(!activity.is_busy(7, 0, 2_000), "nothing was answered");
        assert!(!activity.is_busy(7, 5, 2_000), "requests in flight alone are no sign of life");
        assert!(activity.is_busy(8, 0, 2_000), "answered during the check");
        activity.begin(8, 3_000);
        assert!(activity.is_busy(8, 0, 4_000), "answered since the check before began");
        activity.begin(8, 5_000);
        assert!(!activity.is_busy(8, 0, 6_000));
        assert!(activity.is_busy(8, 1, 12_000), "one in flight, and life ten seconds ago");
        assert!(!activity.is_busy(8, 1, 12_001));
    }

    #[test]
    fn the_interval_is_jittered_and_never_nothing() {
        for _ in 0..1000 {
            let interval = jittered(Duration::from_secs(10));
            assert!((Duration::from_secs(9)..=Duration::from_secs(11)).contains(&interval), "{interval:?}");
        }
        assert_eq!(jittered(Duration::ZERO), SHORTEST_INTERVAL);
    }

    #[tokio::test]
    async fn a_passed_check_ends_an_ejection() {
        let backend = Backend::start(OK).await;
        let upstream = upstream_of(&backend);
        let (server, _task) = start(&upstream, checks(10, 1000));
        eventually("a check that passed", || backend.requests() > 0 && upstream.is_healthy()).await;
        server.health.failed(Failure::Connect);
        server.health.failed(Failure::Connect);
        assert_eq!(server.health.state(), State::Ejected);
        eventually("back", || server.health.state() == State::Returning).await;
    }
}
