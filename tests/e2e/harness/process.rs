//! Processes that end when the test does, however it ends.
//!
//! A guard ends a process when it is dropped. What outlives a single test (the shared backends), and what a killed
//! test run leaves, is ended by the kernel: every process asks to be told when the thread that started it is gone,
//! and that thread lives as long as the test run.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::PATIENCE;

/// A running process, at the head of a process group of its own.
pub struct Process {
    child: Child,
    output: Arc<Output>,
    /// Then its number may be another's by now.
    killed: bool,
}

/// What a process has written to stdout and stderr so far, in lines.
#[derive(Default)]
pub struct Output {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
    /// How many of stdout and stderr have ended.
    ended: AtomicUsize,
}

type Order = (Command, Sender<std::io::Result<Child>>);

/// Starts `command` on the thread that lives to the end.
fn spawn(command: Command) -> std::io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, orders) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in orders {
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (sender, answer) = channel();
    spawner.send((command, sender)).unwrap();
    answer.recv().unwrap()
}

impl Process {
    /// Starts `program`; `prepare` adds arguments and environment.
    pub fn start(program: &str, prepare: impl FnOnce(&mut Command)) -> Process {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--", program]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        prepare(&mut command);
        let mut child = spawn(command).unwrap_or_else(|error| panic!("{program} could not be started: {error}"));
        let output = Arc::new(Output::default());
        output.follow(child.stdout.take().unwrap());
        output.follow(child.stderr.take().unwrap());
        Process { child, output, killed: false }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn output(&self) -> &Output {
        &self.output
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Signals this process alone. One that is gone already is no concern.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(self.pid(), signal);
    }

    /// Kills it and everything it started, as the kernel does when memory runs out.
    pub fn kill(&mut self) {
        if !self.killed {
            let _ = kill_process_group(self.pid(), Signal::KILL);
            let _ = self.child.wait();
            self.killed = true;
        }
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the end that it is about to find by itself.
    pub fn wait(&mut self) -> ExitStatus {
        super::eventually("the process ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Output {
    fn follow(self: &Arc<Self>, from: impl Read + Send + 'static) {
        let output = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                output.lines.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
                output.grown.notify_all();
            }
            let _held = output.lines.lock().unwrap();
            output.ended.fetch_add(1, Ordering::Relaxed);
            output.grown.notify_all();
        });
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// Waits for a line that `look` makes something of, whether it has come already or not; not for one that cannot come
    /// any more.
    pub fn find<T>(&self, what: &str, mut look: impl FnMut(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.lines.lock().unwrap();
        let mut seen = 0;
        loop {
            while let Some(line) = lines.get(seen) {
                if let Some(found) = look(line) {
                    return found;
                }
                seen += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.ended.load(Ordering::Relaxed) == 2 {
                let text = lines.join("\n");
                drop(lines);
                panic!("no line of the output says this: {what}\n{text}");
            }
            lines = self.grown.wait_timeout(lines, left).unwrap().0;
        }
    }
}
