//! The data plane's threads: starting them, and the commands that the control plane gives them.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::accept::Acceptor;
use super::bind::SocketKey;
use super::listener::Listener;
use super::open::OpenConnections;
use crate::clock;
use crate::gateway::Gateway;
use crate::observe::metrics::Metrics;
use crate::observe::metrics::WorkerId;
use crate::worker::Worker;

/// How long the end of a worker waits for its threads that may block: a disk that has died keeps them for ever.
const BLOCKED: Duration = Duration::from_secs(1);

/// What a worker is told.
pub enum Command {
    /// Accept from this socket on behalf of `listener`, or of whichever has the key in the newest snapshot.
    Listen { key: SocketKey, socket: TcpListener, listener: Arc<Listener> },
    /// Take what is queued, then close the sockets of these keys; `done` is dropped when that has happened.
    GiveUp { keys: Vec<SocketKey>, done: oneshot::Sender<()> },
    /// Take the newest snapshot, though no request comes.
    Look,
    /// Give up every socket, let every connection come to its end, and return when none is left.
    Drain,
    /// Return at once, closing whatever is open.
    Stop,
}

/// The end of a worker's thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub worker: WorkerId,
    /// Connections that were cut off.
    pub cut_off: usize,
    /// It was told to, and did not panic.
    pub orderly: bool,
}

/// The threads of the data plane.
#[derive(Debug)]
pub struct Workers {
    commands: Vec<mpsc::UnboundedSender<Command>>,
}

impl Workers {
    /// Starts `count` threads, which listen to nothing yet. What comes second tells of each thread's end.
    ///
    /// # Errors
    /// What the system says when a thread cannot be made.
    pub fn start(
        count: usize,
        newest: &Arc<ArcSwap<Gateway>>,
        metrics: &Arc<Metrics>,
    ) -> io::Result<(Workers, mpsc::UnboundedReceiver<Ended>)> {
        let (to, ended) = mpsc::unbounded_channel();
        let mut commands = Vec::with_capacity(count);
        for id in (0..count).map(WorkerId) {
            let (command, received) = mpsc::unbounded_channel();
            let (newest, metrics) = (Arc::clone(newest), Arc::clone(metrics));
            let end = TellEnd { ended: Ended { worker: id, cut_off: 0, orderly: false }, to: to.clone() };
            let name = format!("worker-{}", id.0);
            std::thread::Builder::new().name(name).spawn(move || thread(id, newest, metrics, received, end))?;
            commands.push(command);
        }
        Ok((Workers { commands }, ended))
    }

    pub fn count(&self) -> usize {
        self.commands.len()
    }

    /// Hands one socket to each worker.
    pub fn listen(&self, key: &SocketKey, listener: &Arc<Listener>, sockets: Vec<TcpListener>) {
        for (commands, socket) in self.commands.iter().zip(sockets) {
            // A worker that has ended has told so.
            let _ = commands.send(Command::Listen { key: key.clone(), socket, listener: Arc::clone(listener) });
        }
    }

    /// Returns when every worker has taken what was queued on the sockets of `keys` and closed them.
    pub async fn give_up(&self, keys: &[SocketKey]) {
        let mut waiting = Vec::with_capacity(self.commands.len());
        for commands in &self.commands {
            let (done, closed) = oneshot::channel();
            let _ = commands.send(Command::GiveUp { keys: keys.to_vec(), done });
            waiting.push(closed);
        }
        for closed in waiting {
            // Dropped unsent is how it is told.
            let _ = closed.await;
        }
    }

    /// There is a new snapshot: nobody keeps what only the one before had.
    pub fn look(&self) {
        for commands in &self.commands {
            let _ = commands.send(Command::Look);
        }
    }

    pub fn drain(&self) {
        for commands in &self.commands {
            let _ = commands.send(Command::Drain);
        }
    }

    pub fn stop(&self) {
        for commands in &self.commands {
            let _ = commands.send(Command::Stop);
        }
    }
}

/// Tells of a thread's end however it comes.
struct TellEnd {
    ended: Ended,
    to: mpsc::UnboundedSender<Ended>,
}

impl Drop for TellEnd {
    fn drop(&mut self) {
        let _ = self.to.send(self.ended);
    }
}

fn thread(
    id: WorkerId,
    newest: Arc<ArcSwap<Gateway>>,
    metrics: Arc<Metrics>,
    commands: mpsc::UnboundedReceiver<Command>,
    mut end: TellEnd,
) {
    clock::keep();
    let mut builder = Builder::new_current_thread();
    // Threads that may block are made on demand, and bounded where they are asked for: files of bodies (`body`), files
    // that are served (`files`), large bodies that are judged (`validate`) never wait for each other.
    builder.enable_all().on_thread_park(clock::forget);
    let runtime = match builder.build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(worker = id.0, %error, "a worker's runtime could not be made");
            return;
        }
    };
    end.ended.cut_off = runtime.block_on(run(Worker::new(id, newest, metrics), commands));
    // Connections that are cut off are closed before the end is told.
    runtime.shutdown_timeout(BLOCKED);
    end.ended.orderly = true;
}

/// A socket that is accepted from.
struct Accepting {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Obeys until it is stopped or drained; returns how many connections are cut off.
async fn run(worker: Worker, mut commands: mpsc::UnboundedReceiver<Command>) -> usize {
    let worker = Rc::new(worker);
    worker.gateway().limits.prepare(&worker.admission.stores);
    let open = Rc::new(OpenConnections::default());
    let mut sockets: HashMap<SocketKey, Accepting> = HashMap::new();
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Listen { key, socket, listener }) => match tokio::net::TcpListener::from_std(socket) {
                    Ok(socket) => {
                        let acceptor = Acceptor::new(&worker, &open, key.clone(), listener);
                        let (stop, stopped) = oneshot::channel();
                        let task = tokio::task::spawn_local(acceptor.run(socket, stopped));
                        sockets.insert(key, Accepting { stop, task });
                    }
                    Err(error) => tracing::error!(address = %key, %error, "a socket could not be listened to"),
                },
                Some(Command::GiveUp { keys, done }) => {
                    close(keys.iter().filter_map(|key| sockets.remove(key)).collect()).await;
                    drop(done);
                }
                Some(Command::Look) => drop(worker.gateway()),
                Some(Command::Drain) => {
                    close(sockets.drain().map(|(_, accepting)| accepting).collect()).await;
                    worker.drain.begin();
                }
                Some(Command::Stop) | None => {
                    worker.drain.cut_off();
                    break;
                }
            },
            () = open.all_closed(), if worker.drain.is_draining() => break,
        }
    }
    let cut_off = open.count();
    worker.admission.stores.leave().await;
    cut_off
}

async fn close(sockets: Vec<Accepting>) {
    let mut tasks = Vec::with_capacity(sockets.len());
    for Accepting { stop, task } in sockets {
        let _ = stop.send(());
        tasks.push(task);
    }
    for task in tasks {
        if let Err(error) = task.await {
            tracing::error!(%error, "accepting ended in disorder");
        }
    }
}
