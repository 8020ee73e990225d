//! The demo, as the README tells users to run it: it comes up, its `curl` lines work, and it leaves nothing behind.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::harness::process::Process;
use crate::harness::{eventually, free_port};

/// A demo that is up: the process, and the `curl` lines that it printed.
struct Demo {
    process: Process,
    lines: Vec<String>,
}

fn demo() -> Demo {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Kept from run to run, for the Python environment in it, and not the one of a demo that someone is running.
    let state = root.join("target/test-demo");
    // Whoever runs the tests in the background has SIGINT ignored, and a shell cannot trap what it was started to ignore.
    let process = Process::start("env", |command| {
        command.args(["--default-signal=INT", "examples/demo", "--binary", env!("CARGO_BIN_EXE_passerelle")]);
        command.current_dir(root);
        command.env("DEMO_DIRECTORY", &state);
        for name in ["HTTPS_PORT", "HTTP_PORT", "ADMIN_PORT"] {
            command.env(name, free_port().to_string());
        }
    });
    process.output().find("the demo is ready", |line| line.contains("Ctrl-C stops everything").then_some(()));
    let lines = process.output().lines();
    let lines = lines.iter().filter_map(|line| line.trim().strip_prefix("curl ").map(str::to_owned)).collect();
    Demo { process, lines }
}

/// What is left of the processes that a demo started: those with its state in what they run or in
/// their environment; other demos may be running.
fn left_over() -> Vec<String> {
    let state = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-demo");
    let (environment, state) = (format!("DEMO_STATE={}", state.display()), format!("{}/venv", state.display()));
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let ours = read("environ").split(|byte| *byte == 0).any(|variable| variable == environment.as_bytes());
        if command.contains(&state) || (ours && command.contains("run --config config/demo.toml")) {
            found.push(command);
        }
    }
    found
}

// One test, since two demos at a time would share what they keep.
#[test]
fn the_demo_works_and_leaves_nothing_behind() {
    let mut first = demo();
    assert!(first.lines.len() >= 6, "{:?}", first.lines);
    for line in &first.lines {
        let output = Command::new("bash")
            .args(["-c", &format!("curl -sS --max-time 20 {line}")])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "curl {line}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!output.stdout.is_empty(), "curl {line}");
    }
    for status in ["200", "201", "401", "403", "422", "429"] {
        let line = first.lines.iter().find(|line| line.contains(&format!("# {status}"))).expect(status);
        let (line, _) = line.split_once(" # ").unwrap();
        let output = Command::new("bash")
            .args(["-c", &format!("curl -sS --max-time 20 {line}")])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        // What is printed shows it.
        assert!(told.split_ascii_whitespace().any(|word| word == status), "curl {line}: {told}");
    }
    first.process.signal(Signal::INT);
    assert_eq!(first.process.wait().code(), Some(130), "{}", first.process.output().text());
    eventually("everything that the demo started has ended", || left_over().is_empty().then_some(()));

    let mut second = demo();
    second.process.signal(Signal::TERM);
    assert_eq!(second.process.wait().code(), Some(143));
    eventually("everything that the demo started has ended", || left_over().is_empty().then_some(()));

    // The end of any of its processes is the end of all.
    let mut third = demo();
    let gunicorn = std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let is_it = String::from_utf8_lossy(&command).contains("target/test-demo/venv/bin/gunicorn");
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let parent = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent: u32 = parent.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()?;
        (is_it && parent == third.process.id()).then_some(pid)
    });
    let gunicorn = rustix::process::Pid::from_raw(gunicorn.expect("a gunicorn of the demo")).unwrap();
    rustix::process::kill_process(gunicorn, Signal::KILL).unwrap();
    assert_eq!(third.process.wait().code(), Some(1), "{}", third.process.output().text());
    eventually("everything that the demo started has ended", || left_over().is_empty().then_some(()));
}
