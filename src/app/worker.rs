//! One worker of an app, from its start to its end: a process that listens at a socket of its own, and the server that
//! requests reach it by.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot::error::RecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::failure::Failure;
use super::launch::Launch;
use super::output::{self, LastLines};
use super::place;
use super::process::Process;
use super::remove::remove;
use super::stage::Stage;
use crate::upstream::{Server, Worker as Description};

/// How long one question whether it is ready may take.
const ASK_PATIENCE: Duration = Duration::from_secs(5);

/// Pauses between such questions: short at first, since most services are there within a second.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How long a worker that runs nothing any more may take to end.
pub(super) const END_PATIENCE: Duration = Duration::from_secs(10);

/// What is told of a worker.
#[derive(Debug)]
pub(super) enum Event {
    Started {
        number: u32,
        pid: i32,
        /// What it and everything below it descends from.
        keeper: Option<i32>,
    },
    /// It answers.
    Ready { number: u32, server: Arc<Server>, took: Duration },
    /// It is gone.
    Ended { number: u32, end: End },
}

/// How a worker came to its end.
#[derive(Debug)]
pub(super) enum End {
    /// It was asked to.
    Asked,
    /// By itself, before it was ready or after.
    Failed(Failure),
}

/// What is asked of a worker.
#[derive(Debug)]
pub(super) enum Asked {
    /// To end, within the time.
    ToEnd(Duration),
    /// Nothing any more: it has failed, and is killed.
    Failed(String),
}

/// What stops a worker. Dropped, it is killed.
pub(super) type Stop = oneshot::Receiver<Asked>;

/// Runs a worker to its end. `number` is its own among all workers of the app.
pub(super) async fn run(
    launch: Arc<Launch>,
    stage: Arc<Stage>,
    number: u32,
    stop: Stop,
    events: mpsc::UnboundedSender<Event>,
) {
    let end = match Directory::make(&launch, number).await {
        Ok(directory) => {
            let end = live(&launch, &stage, number, &directory, stop, &events).await;
            directory.remove().await;
            end
        }
        Err(error) => End::Failed(Failure::new(format!("its socket's directory could not be made: {error}"))),
    };
    // Here, since the fleet may have been dropped.
    stage.give_back(number);
    // The fleet may be gone.
    let _ = events.send(Event::Ended { number, end });
}

/// A private directory with a worker's socket, and whatever else its server listens at. What is left of it when the task is
/// dropped goes with the next start.
struct Directory(PathBuf);

impl Directory {
    async fn make(launch: &Launch, number: u32) -> io::Result<Directory> {
        let path = launch.app.place.sockets().join(format!("{}-{number}", launch.release));
        let directory = Directory(path);
        directory.remove().await;
        place::private(&directory.0, &launch.app.account)?;
        Ok(directory)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("http")
    }

    /// Beside the runtime: the app's user decides how much there is.
    async fn remove(&self) {
        let path = self.0.clone();
        let removed = tokio::task::spawn_blocking(move || remove(&path)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(path = %self.0.display(), %error, "a worker's directory could not be removed");
        }
    }
}

async fn live(
    launch: &Arc<Launch>,
    stage: &Stage,
    number: u32,
    directory: &Directory,
    mut stop: Stop,
    events: &mpsc::UnboundedSender<Event>,
) -> End {
    let socket = directory.socket();
    let began = Instant::now();
    let started = Process::start(&launch.worker(&socket), &launch.environ(Some(&directory.0))).await;
    let (mut process, written) = match started {
        Ok(started) => started,
        Err(error) => return End::Failed(Failure::new(format!("its process could not be started: {error}"))),
    };
    let _ = events.send(Event::Started { number, pid: process.pid, keeper: process.keeper() });
    let last = LastLines::default();
    let output = output::log(Arc::clone(launch), process.pid, written, last.clone());
    let output = tokio::spawn(output);
    let server = server_of(launch, stage, number, &socket);
    let ready = tokio::select! {
        ready = until_ready(launch, stage, &server, &socket) => ready,
        ended = process.ended() => {
            return end_of(format!("a worker ended before it was ready: {ended}"), output, &last).await;
        }
        asked = &mut stop => return stopped(&mut process, asked, output, &last).await,
    };
    if let Err(why) = ready {
        process.stop(END_PATIENCE).await;
        return end_of(why, output, &last).await;
    }
    let _ = events.send(Event::Ready { number, server, took: began.elapsed() });
    tokio::select! {
        ended = process.ended() => end_of(format!("a worker ended while it served: {ended}"), output, &last).await,
        asked = &mut stop => stopped(&mut process, asked, output, &last).await,
    }
}

fn server_of(launch: &Launch, stage: &Stage, number: u32, socket: &Path) -> Arc<Server> {
    stage.upstream.load().worker(Description {
        label: &format!("worker-{number}"),
        socket,
        protocol: launch.protocol(),
        owner: launch.app.account.ids.as_ref().map(|ids| ids.uid),
        slots: launch.slots(),
    })
}

async fn stopped(
    process: &mut Process,
    asked: Result<Asked, RecvError>,
    output: JoinHandle<()>,
    last: &LastLines,
) -> End {
    match asked.unwrap_or(Asked::ToEnd(Duration::ZERO)) {
        Asked::ToEnd(grace) => {
            process.stop(grace).await;
            End::Asked
        }
        Asked::Failed(why) => {
            process.stop(Duration::ZERO).await;
            end_of(why, output, last).await
        }
    }
}

/// With what it had to say, which has been read by then; unless something that it started holds the other end for ever.
async fn end_of(why: String, output: JoinHandle<()>, last: &LastLines) -> End {
    let _ = tokio::time::timeout(END_PATIENCE, output).await;
    End::Failed(Failure::with_output(why, last.to_vec()))
}

/// Asks until it is ready, for as long as a start may take.
async fn until_ready(launch: &Launch, stage: &Stage, server: &Arc<Server>, socket: &Path) -> Result<(), String> {
    let patience = launch.app.settings.start_timeout;
    let deadline = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    let mut last = "it does not listen yet".to_owned();
    loop {
        if socket.exists() {
            match stage.upstream.load_full().try_worker(server, ASK_PATIENCE.min(patience)).await {
                Ok(()) => return Ok(()),
                Err(why) => last = why,
            }
        }
        if Instant::now() >= deadline {
            return Err(format!("a worker was not ready within start_timeout, {patience:?}: {last}"));
        }
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
}
