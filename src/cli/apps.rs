//! `passerelle release`, `rollback` and `apps`: what the running gateway is asked about the apps it runs.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::control::{PATIENCE, ask, socket_of};
use super::{Exit, print_error};
use crate::admin::control::protocol::{Answer, Command};
use crate::app::report::{AppReport, WorkerState};
use crate::app::tally::RestartReason;

pub(super) fn release(config: &Path, app: String, directory: Option<PathBuf>) -> Exit {
    // The gateway does not know where this command was given, and may be told of it long after.
    let directory = directory.map(|directory| directory.canonicalize().unwrap_or(directory));
    if let Some(directory) = directory.as_ref().filter(|directory| !directory.is_dir()) {
        print_error(&format!("passerelle: {} is no directory\n", directory.display()));
        return Exit::Wrong;
    }
    follow(config, Command::Release { app, directory }, "not released")
}

pub(super) fn rollback(config: &Path, app: String) -> Exit {
    follow(config, Command::Rollback { app }, "not rolled back")
}

/// What was already done goes on if this command is interrupted.
fn follow(config: &Path, command: Command, not: &str) -> Exit {
    let Some(socket) = socket_of(config) else { return Exit::Wrong };
    let tell = |line: &str| {
        let _ = writeln!(io::stdout(), "{}", plain(line));
    };
    let why = match ask(&socket, command, None, tell) {
        Ok(Answer::Done { said }) => {
            tell(&said);
            return Exit::Fine;
        }
        Ok(Answer::Undone { why } | Answer::Refused { reason: why }) => why,
        Ok(Answer::Ok { .. } | Answer::Failed { .. } | Answer::Progress { .. } | Answer::Apps { .. }) => {
            "the gateway's answer is one to something else".to_owned()
        }
        Err(error) => error.to_string(),
    };
    print_error(&format!("passerelle: {not}: {}\n", plain(&why)));
    Exit::Failed
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Human,
    Json,
}

pub(super) fn apps(config: &Path, format: Format) -> Exit {
    let Some(socket) = socket_of(config) else { return Exit::Wrong };
    let why = match ask(&socket, Command::Apps, Some(PATIENCE), |_| {}) {
        Ok(Answer::Apps { apps }) => {
            let text = match format {
                Format::Human => apps.iter().map(|app| human(app, SystemTime::now())).collect::<Vec<_>>().join("\n"),
                Format::Json => serde_json::to_string_pretty(&apps).unwrap_or_default() + "\n",
            };
            let text = if text.is_empty() { "no apps are configured\n".to_owned() } else { text };
            return match io::stdout().write_all(text.as_bytes()) {
                Ok(()) => Exit::Fine,
                Err(_) => Exit::Failed,
            };
        }
        Ok(Answer::Refused { reason }) => reason,
        Ok(
            Answer::Ok { .. }
            | Answer::Failed { .. }
            | Answer::Progress { .. }
            | Answer::Done { .. }
            | Answer::Undone { .. },
        ) => "the gateway's answer is one to something else".to_owned(),
        Err(error) => error.to_string(),
    };
    print_error(&format!("passerelle: {why}\n"));
    Exit::Failed
}

/// What an app or an installer says must not command the terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

fn human(app: &AppReport, now: SystemTime) -> String {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let age = |then: u64| shown(Duration::from_secs(now.saturating_sub(then)));
    let serving = app.workers.iter().filter(|worker| worker.state == WorkerState::Serving).count();
    let release = app.release.map_or("no release".to_owned(), |release| format!("release {release}"));
    let state = if app.crashing { ", crashing" } else { "" };
    let mut text = format!(
        "{}: {release}, {serving} of {} workers serve{state}, {} restarts{}\n",
        app.name,
        app.wanted,
        app.restarts,
        reasons(&app.restarts_by_reason)
    );
    if let Some(limit) = app.memory_limit {
        text += &format!("  memory_limit {} for each worker\n", size(limit));
    }
    if !app.workers.is_empty() {
        text += "  WORKER  RELEASE  STATE     PID      AGE      MEMORY     RUNS\n";
    }
    for worker in &app.workers {
        let state = worker.state.as_str();
        let pid = worker.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let (number, release, age) = (worker.number, worker.release, age(worker.started));
        let (memory, runs) = (worker.memory.map_or_else(|| "-".to_owned(), size), worker.in_flight);
        text += &format!("  {number:<7} {release:<8} {state:<9} {pid:<8} {age:<8} {memory:<10} {runs}\n");
    }
    for release in app.releases.iter().rev() {
        let serves = if Some(release.id) == app.release { ", serves" } else { "" };
        let (id, made) = (release.id, age(release.made));
        text += &format!("  release {id}: {}, made {made} ago{serves}\n", release.directory.display());
    }
    if let Some(trouble) = &app.trouble {
        text += &format!("  trouble: {}\n", plain(trouble).replace('\n', "\n  "));
    }
    text
}

/// Why, where there is anything to tell.
fn reasons(restarts: &BTreeMap<RestartReason, u64>) -> String {
    let told = restarts.iter().filter(|(_, count)| **count > 0);
    let told: Vec<String> = told.map(|(reason, count)| format!("{count} {}", reason.as_str())).collect();
    if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) }
}

fn size(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1024 * 1024))
}

/// In the largest unit that fits.
fn shown(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}
