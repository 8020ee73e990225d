//! What a worker takes of the machine: processor, memory and open files of its process and of everything below it, read
//! from `/proc`.
//!
//! A worker is a tree: gunicorn has a master and its child, and an app may start programs of its own. The root is the
//! worker's keeper, which is not counted itself: whoever outlives its parent becomes the keeper's child, and nobody leaves
//! the tree. Reading takes system calls and the locks of the processes that are read, so it is done on threads that may block.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

/// Clock ticks in a second, as Linux tells processor times to programs on every architecture that Rust supports.
const TICKS: u64 = 100;

/// Processes of one worker that are looked at, and threads of one process whose children are.
const MOST_PROCESSES: usize = 256;
const MOST_THREADS: usize = 256;

/// How long what processes share is taken to stay the same, as long as they are the same processes.
const SHARED_INTERVAL: Duration = Duration::from_secs(10);

/// A worker's processes at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Of all processes that ran since the start, those that ended among them.
    pub(super) cpu: Duration,
    /// Bytes of memory. What several processes share (the interpreter, whatever was loaded before a fork) counts for each
    /// by its part: the sum of what each has would count it as often as there are processes, and replace gunicorn's workers
    /// for what they do not take. Where the kernel does not tell that, it is this sum.
    pub(super) resident: u64,
    /// `None`: the kernel does not let us see them.
    pub(super) open_files: Option<u64>,
    /// The processes that the server has started itself are all others than before.
    pub(super) lost_children: bool,
}

/// How to find the processes of one worker.
#[derive(Debug)]
pub(super) struct Tree {
    keeper: i32,
    /// The server, and what it had started when it was last seen to have anything.
    server: i32,
    children: BTreeSet<i32>,
    shared: Option<Shared>,
    /// Sums fall when a process ends that nobody waits for; what was used was used.
    most_cpu: Duration,
}

/// What of the sum of resident memory is counted more than once. To find it out, the kernel walks all pages, some
/// milliseconds for each GiB, so it is not asked every time.
#[derive(Debug)]
struct Shared {
    bytes: u64,
    among: BTreeSet<i32>,
    seen: Instant,
}

impl Tree {
    /// `keeper`: the process that all of them descend from; `server`: the one that was to be run.
    pub(super) fn new(keeper: i32, server: i32) -> Tree {
        Tree { keeper, server, children: BTreeSet::new(), shared: None, most_cpu: Duration::ZERO }
    }

    /// Looks at all processes; `None` when there are none.
    pub(super) fn look(&mut self) -> Option<Usage> {
        let processes = descendants(self.keeper);
        if processes.is_empty() {
            return None;
        }
        // Whoever was waited for by the keeper is in its own account.
        let mut ticks = Stat::of(self.keeper).map_or(0, |stat| stat.waited_for);
        let (mut sum, mut open_files) = (0u64, None::<u64>);
        for pid in &processes {
            // It may have ended by now.
            let Some(stat) = Stat::of(*pid) else { continue };
            ticks = ticks.saturating_add(stat.own).saturating_add(stat.waited_for);
            sum = sum.saturating_add(stat.resident);
            if let Some(files) = files_of(*pid) {
                open_files = Some(open_files.unwrap_or(0).saturating_add(files));
            }
        }
        let cpu = Duration::from_millis(ticks.saturating_mul(1000 / TICKS));
        self.most_cpu = self.most_cpu.max(cpu);
        let resident = sum.saturating_sub(self.shared_of(processes, sum));
        Some(Usage { cpu: self.most_cpu, resident, open_files, lost_children: self.has_lost_children() })
    }

    fn has_lost_children(&mut self) -> bool {
        let children: BTreeSet<i32> = children(self.server).into_iter().collect();
        // A server that has none may be about to end itself.
        if children.is_empty() {
            return false;
        }
        let before = std::mem::replace(&mut self.children, children);
        !before.is_empty() && before.is_disjoint(&self.children)
    }

    fn shared_of(&mut self, processes: BTreeSet<i32>, sum: u64) -> u64 {
        let holds = |shared: &&Shared| shared.among == processes && shared.seen.elapsed() < SHARED_INTERVAL;
        if let Some(shared) = self.shared.as_ref().filter(holds) {
            return shared.bytes;
        }
        // Of all of them, or else parts and wholes would be mixed.
        let parts: Option<Vec<u64>> = processes.iter().map(|pid| proportional(*pid)).collect();
        let bytes = parts.map_or(0, |parts| sum.saturating_sub(parts.into_iter().fold(0, u64::saturating_add)));
        self.shared = Some(Shared { bytes, among: processes, seen: Instant::now() });
        bytes
    }
}

/// Everything below `root`, without it.
fn descendants(root: i32) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    let mut ahead = vec![root];
    while let Some(pid) = ahead.pop() {
        for child in children(pid) {
            if found.len() < MOST_PROCESSES && found.insert(child) {
                ahead.push(child);
            }
        }
    }
    found
}

/// A child is its parent's thread's.
fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let listed = threads.take(MOST_THREADS).flatten().map(|thread| thread.path().join("children"));
    let texts = listed.filter_map(|path| fs::read_to_string(path).ok());
    texts.flat_map(|text| numbers(&text)).collect()
}

fn numbers(text: &str) -> Vec<i32> {
    text.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect()
}

/// What of `/proc/PID/stat` is of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    /// Ticks of its own.
    own: u64,
    /// Those of its children that have ended.
    waited_for: u64,
    /// In bytes.
    resident: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Stat> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let page = u64::try_from(rustix::param::page_size()).ok()?;
        Stat::parse(&text, page)
    }

    /// Fields are counted as in proc(5), from one. The second, the program's name, may hold blanks and parentheses, so
    /// counting begins behind its last one.
    fn parse(text: &str, page: u64) -> Option<Stat> {
        let rest: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |number: usize| rest.get(number.checked_sub(3)?)?.parse::<u64>().ok();
        Some(Stat {
            own: field(14)?.checked_add(field(15)?)?,
            waited_for: field(16)?.checked_add(field(17)?)?,
            resident: field(24)?.checked_mul(page)?,
        })
    }
}

/// Newer kernels (6.2) tell the number as the size of the directory; elsewhere that is 0.
fn files_of(pid: i32) -> Option<u64> {
    let directory = format!("/proc/{pid}/fd");
    match fs::metadata(&directory).ok()?.size() {
        0 => fs::read_dir(&directory).ok().map(|files| u64::try_from(files.count()).unwrap_or(u64::MAX)),
        size => Some(size),
    }
}

/// Bytes of memory, those that others have too by their part. Not told to whoever may not trace the process.
fn proportional(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    pss(&text)
}

fn pss(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;

    #[test]
    fn a_stat_is_read_past_an_odd_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 150 30 20 20 0 3 0 1000 8192 2 18446744073709551615";
        assert_eq!(Stat::parse(stat, 4096), Some(Stat { own: 400, waited_for: 50, resident: 8192 }));
        for broken in ["", "7 (a)", "7 (a) S 1 7 7 0"] {
            assert_eq!(Stat::parse(broken, 4096), None, "{broken}");
        }
        assert_eq!(pss("Rss:  8 kB\nPss:                2048 kB\nPss_Dirty: 1 kB\n"), Some(2_097_152));
        assert_eq!(pss("Rss: 8 kB\n"), None);
    }

    /// A shell with what it has started.
    struct Shell(Child);

    impl Shell {
        /// Runs a script that says a line once everything is there.
        fn run(script: &str) -> Shell {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            Shell(child)
        }

        fn pid(&self) -> i32 {
            i32::try_from(self.0.id()).unwrap()
        }
    }

    impl Drop for Shell {
        fn drop(&mut self) {
            // All of them read the same end.
            drop(self.0.stdin.take());
            self.0.wait().unwrap();
        }
    }

    #[test]
    fn a_tree_is_counted_whole_and_its_root_is_not() {
        let shell = Shell::run("exec 3<&0; (cat <&3 & cat <&3; wait) & echo; read -r x; wait");
        // The subshell, and its two.
        let found = std::iter::repeat_with(|| descendants(shell.pid())).find(|found| found.len() == 3).unwrap();
        assert!(!found.contains(&shell.pid()));
        let usage = Tree::new(shell.pid(), shell.pid()).look().unwrap();
        assert!(usage.open_files.unwrap() >= 9, "{usage:?}");
        let sum: u64 = found.iter().map(|pid| Stat::of(*pid).unwrap().resident).sum();
        assert!(usage.resident > 0 && usage.resident < sum, "{usage:?} of {sum}");
    }

    #[test]
    fn what_processes_used_that_have_ended_stays_used() {
        let burn = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let shell = Shell::run(&format!("exec 3<&0; (sh -c '{burn}'; echo; cat <&3) & read -r x; wait"));
        let mut tree = Tree::new(shell.pid(), shell.pid());
        let usage = tree.look().unwrap();
        assert!(usage.cpu > Duration::ZERO, "{usage:?}");
        assert!(tree.look().unwrap().cpu >= usage.cpu);
    }

    #[test]
    fn a_server_whose_children_are_all_others_has_lost_them() {
        let script = "exec 3<&0; while :; do cat <&3 & echo $!; wait $!; case $? in 143) ;; *) exit;; esac; done";
        let mut command = Command::new("sh");
        let mut shell = command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
        let mut next = || lines.next().unwrap().unwrap().parse::<i32>().unwrap();
        let server = i32::try_from(shell.id()).unwrap();
        let mut tree = Tree::new(server, server);
        let first = next();
        assert!([tree.look(), tree.look()].iter().all(|usage| !usage.unwrap().lost_children));
        let first = rustix::process::Pid::from_raw(first).unwrap();
        rustix::process::kill_process(first, rustix::process::Signal::TERM).unwrap();
        next();
        let seen = [tree.look(), tree.look()].map(|usage| usage.unwrap().lost_children);
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert_eq!(seen, [true, false]);
    }

    #[test]
    fn nobody_is_nothing() {
        let shell = Shell::run("echo; read -r x");
        assert_eq!(Tree::new(shell.pid(), shell.pid()).look(), None);
        assert_eq!(Tree::new(i32::MAX, i32::MAX).look(), None);
    }
}
