//! How limits are counted in Redis or Valkey.
//!
//! A decision is one call of a script, so it is atomic and one round trip. The keys of a decision share a hash tag, so
//! that they lie in one slot of a cluster: `passerelle:{LIMIT:DIGEST}:rate` is a bucket's time,
//! `passerelle:{LIMIT:DIGEST}:held` the places that are held. The digest hides what is counted by: it may be a person's
//! name. Every key expires when it says nothing any more.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::digest;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisConnectionInfo, RedisError, Script,
    ServerErrorKind, TlsCertificates, Value,
};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;

use super::gcra::Gcra;
use super::key::CountedBy;
use crate::config::settings::{Host, LimitRules, Rate, RateLimit, StoreUrl};

/// Ticks of a second there: tenths of microseconds. In Lua, whose numbers are doubles, such times are exact for
/// centuries, and rates up to a hundred thousand a second are within 1%.
pub const SECOND: u64 = 10_000_000;

/// As far ahead as a bucket there may be: some three years.
const DEEPEST: u64 = 1 << 50;

/// How long a place is held unless that is renewed: what a gateway that dies held is free again after this.
pub const LEASE: Duration = Duration::from_secs(30);

/// So many commands are taken at once from those that ask, before any of them has to wait for its turn.
const ON_THEIR_WAY: usize = 1024;

static DECIDE: LazyLock<Program> = LazyLock::new(|| Program::new(include_str!("decide.lua")));
static RENEW: LazyLock<Program> = LazyLock::new(|| Program::new(include_str!("renew.lua")));

/// A script and its digest, by which the server knows it once it has run.
struct Program {
    text: &'static str,
    script: Script,
}

impl Program {
    fn new(text: &'static str) -> Program {
        Program { text, script: Script::new(text) }
    }
}

/// Where the store is and how it is spoken to.
pub struct Address {
    url: StoreUrl,
    /// `None`: without TLS.
    tls: Option<Tls>,
}

/// What TLS to the store needs.
#[derive(Clone)]
pub struct Tls {
    pub config: Arc<ClientConfig>,
    /// The file of authorities; `None`: the system's.
    pub ca: Option<Vec<u8>>,
}

/// A connection that many decisions share.
#[derive(Clone)]
pub struct Connection {
    to: To,
    closed: Rc<Closed>,
}

#[derive(Clone)]
enum To {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Told when the other side closes the connection. Those within a cluster are looked after by their own driver.
#[derive(Default)]
pub struct Closed {
    is_closed: Cell<bool>,
    told: Notify,
}

impl Closed {
    fn close(&self) {
        self.is_closed.set(true);
        self.told.notify_waiters();
    }

    pub fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// Returns when it is closed.
    pub async fn wait(&self) {
        let told = self.told.notified();
        if !self.is_closed() {
            told.await;
        }
    }
}

/// Why the store could not be asked.
#[derive(Debug)]
pub enum Failure {
    Timeout,
    Redis(RedisError),
    Io(std::io::Error),
    /// It closed the connection.
    Closed,
    /// It answered, but not what its script returns.
    Strange,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Timeout => f.write_str("it does not answer in time"),
            Failure::Redis(error) => match (error.code(), error.detail()) {
                // What a server says of a failed script repeats none of its arguments.
                (Some(code), Some(detail)) => write!(f, "{code}: {detail}"),
                (_, _) => error.fmt(f),
            },
            Failure::Io(error) => error.fmt(f),
            Failure::Closed => f.write_str("it closed the connection"),
            Failure::Strange => f.write_str("its answer is not that of the script"),
        }
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Failure {
        Failure::Redis(error)
    }
}

/// What is asked of a limit, for the script.
pub struct Question {
    pub gcra: Option<Gcra>,
    pub most: u64,
    /// Of both keys, up to what tells them apart.
    pub key: Rc<str>,
    /// The name of the place that is to be held.
    pub place: Rc<str>,
}

impl Question {
    /// Says nothing of any limit, and is admitted as long as the store works.
    fn probing(most: u64) -> Question {
        let rate = Rate { count: NonZeroU32::MAX, per: Duration::from_secs(1) };
        let gcra = Gcra::new(&RateLimit { rate, burst: NonZeroU32::MAX }, SECOND);
        Question { gcra: Some(gcra), most, key: Rc::from("passerelle:{probe}"), place: Rc::from("probe") }
    }
}

/// What the script answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Admitted { ahead: u64, held: u64 },
    TooFast { ahead: u64, held: u64 },
    TooManyAtOnce,
}

/// The part of the keys that says what is counted: the same in every gateway.
pub fn key(limit: &str, by: &CountedBy<'_>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    by.bytes(|bytes| context.update(bytes));
    let digest = context.finish();
    let half = digest.as_ref().iter().take(16);
    let mut key = format!("passerelle:{{{limit}:");
    for byte in half {
        for digit in [byte >> 4, byte & 0xf] {
            key.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    key.push('}');
    key
}

/// The arithmetic of a limit in ticks of the store.
pub fn gcra(rules: &LimitRules) -> Option<Gcra> {
    rules.rate().map(|rate| Gcra::new(rate, SECOND))
}

impl Address {
    pub fn new(url: StoreUrl, tls: Option<Tls>) -> Address {
        Address { url, tls }
    }

    fn host(&self) -> String {
        match &self.url.authority.host {
            Host::Ip(ip) => ip.to_string(),
            Host::Name(name) => name.clone(),
        }
    }

    /// The text of the file of authorities that the settings name.
    pub fn ca(&self) -> Option<&[u8]> {
        self.tls.as_ref().and_then(|tls| tls.ca.as_deref())
    }

    /// Without user and password.
    pub fn shown(&self) -> String {
        format!("{}:{}", self.host(), self.url.authority.port)
    }

    fn info(&self) -> RedisConnectionInfo {
        let mut info = RedisConnectionInfo::default().set_db(self.url.database).set_skip_set_lib_name();
        if let Some(user) = &self.url.user {
            info = info.set_username(user.expose());
        }
        if let Some(password) = &self.url.password {
            info = info.set_password(password.expose());
        }
        info
    }

    /// Connects, and makes sure that the store can count: its script runs, and writes. To be called where tasks of the
    /// worker can be spawned; whatever drives the connection ends with it.
    ///
    /// # Errors
    /// Whatever keeps it from counting.
    pub async fn connect(&self) -> Result<Connection, Failure> {
        let host = self.host();
        let port = self.url.authority.port;
        let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(Failure::Io)?;
        tcp.set_nodelay(true).map_err(Failure::Io)?;
        let closed = Rc::new(Closed::default());
        let mut single = match &self.tls {
            None => self.speak(tcp, &closed).await?,
            Some(tls) => {
                let name = ServerName::try_from(host).map_err(|error| Failure::Io(std::io::Error::other(error)))?;
                let tls = TlsConnector::from(Arc::clone(&tls.config)).connect(name, tcp).await;
                self.speak(tls.map_err(Failure::Io)?, &closed).await?
            }
        };
        // Who may not ask this is not told, and gets on without.
        let about = redis::cmd("INFO").arg("cluster").query_async::<String>(&mut single).await;
        let clustered = about.is_ok_and(|about| about.lines().any(|line| line.trim() == "cluster_enabled:1"));
        let mut connection = match clustered {
            false => Connection { to: To::Single(single), closed },
            true => Connection { to: To::Cluster(self.connect_cluster().await?), closed: Rc::default() },
        };
        let question = Question::probing(1);
        connection.decide(&question).await?;
        connection.give_back(&question.key, &[Rc::clone(&question.place)]).await?;
        Ok(connection)
    }

    async fn speak<S>(&self, stream: S, closed: &Rc<Closed>) -> Result<MultiplexedConnection, Failure>
    where
        S: Unpin + tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static,
    {
        // Each decision has its own time-out.
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(ON_THEIR_WAY);
        let (connection, driver) = MultiplexedConnection::new_with_config(&self.info(), stream, config).await?;
        let closed = Rc::clone(closed);
        tokio::task::spawn_local(async move {
            driver.await;
            closed.close();
        });
        Ok(connection)
    }

    async fn connect_cluster(&self) -> Result<ClusterConnection, Failure> {
        let (host, port) = (self.host(), self.url.authority.port);
        let address = match self.tls {
            None => ConnectionAddr::Tcp(host, port),
            Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        };
        let node = address.into_connection_info()?.set_redis_settings(self.info());
        let mut builder = ClusterClientBuilder::new([node]).retries(1).connection_timeout(Duration::from_secs(1));
        if let Some(tls) = &self.tls {
            builder = builder.certs(TlsCertificates { client_tls: None, root_cert: tls.ca.clone() });
        }
        Ok(builder.build()?.get_async_connection().await?)
    }
}

impl Connection {
    pub fn closed(&self) -> &Rc<Closed> {
        &self.closed
    }

    /// Asks; the caller says how long that may take.
    ///
    /// # Errors
    /// The store's answer is not that of a decision.
    pub async fn decide(&mut self, question: &Question) -> Result<Reply, Failure> {
        let (interval, depth) =
            question.gcra.map_or((0, 0), |gcra| (gcra.interval().min(DEEPEST), gcra.depth().min(DEEPEST)));
        let value = self
            .run(&DECIDE, |cmd| {
                cmd.arg(2)
                    .arg(format!("{}:rate", question.key))
                    .arg(format!("{}:held", question.key))
                    .arg(interval)
                    .arg(depth)
                    .arg(question.most)
                    .arg(&*question.place)
                    .arg(ticks(LEASE));
            })
            .await?;
        let (verdict, ahead, held): (u8, u64, u64) = redis::from_redis_value(value).map_err(|_| Failure::Strange)?;
        match verdict {
            0 => Ok(Reply::Admitted { ahead, held }),
            1 => Ok(Reply::TooFast { ahead, held }),
            2 => Ok(Reply::TooManyAtOnce),
            _ => Err(Failure::Strange),
        }
    }

    /// Makes a decision that says nothing of any limit: one round trip, since whoever has connected has run the script.
    ///
    /// # Errors
    /// Whatever keeps it from counting.
    pub async fn probe(&mut self) -> Result<(), Failure> {
        self.decide(&Question::probing(0)).await.map(drop)
    }

    /// Goes on holding places of one key; those that the store has lost are held again.
    ///
    /// # Errors
    /// The store's own.
    pub async fn renew(&mut self, key: &str, places: &[Rc<str>]) -> Result<(), Failure> {
        self.run(&RENEW, |cmd| {
            cmd.arg(1).arg(format!("{key}:held")).arg(ticks(LEASE));
            places.iter().for_each(|place| _ = cmd.arg(&**place));
        })
        .await
        .map(drop)
    }

    /// Gives places of one key back.
    ///
    /// # Errors
    /// The store's own.
    pub async fn give_back(&mut self, key: &str, places: &[Rc<str>]) -> Result<(), Failure> {
        let mut cmd = redis::cmd("ZREM");
        cmd.arg(format!("{key}:held"));
        places.iter().for_each(|place| _ = cmd.arg(&**place));
        self.query(&cmd).await.map(drop)
    }

    /// By its digest, and whole where the server does not know it (any more).
    async fn run(&mut self, program: &Program, arguments: impl Fn(&mut Cmd)) -> Result<Value, Failure> {
        let mut by_digest = redis::cmd("EVALSHA");
        by_digest.arg(program.script.get_hash());
        arguments(&mut by_digest);
        match self.query(&by_digest).await {
            Err(Failure::Redis(error)) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {}
            result => return result,
        }
        let mut whole = redis::cmd("EVAL");
        whole.arg(program.text);
        arguments(&mut whole);
        self.query(&whole).await
    }

    async fn query(&mut self, cmd: &Cmd) -> Result<Value, Failure> {
        let value = match &mut self.to {
            To::Single(connection) => connection.req_packed_command(cmd).await,
            To::Cluster(connection) => connection.req_packed_command(cmd).await,
        };
        Ok(value?.extract_error()?)
    }
}

fn ticks(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(SECOND)
}

/// `future`, unless it takes longer.
///
/// # Errors
/// Its own, and the time-out.
pub async fn within<T>(time: Duration, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(time, future).await.unwrap_or(Err(Failure::Timeout))
}
