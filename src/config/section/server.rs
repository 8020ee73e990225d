//! `[server]`

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::node::Node;
use super::super::outside::Outside;
use super::super::reader::{Context, Table};
use super::super::settings::{ServerSettings, TempSettings};
use super::super::value::{self, number};

/// The default of `temp_limit`.
const TEMP_LIMIT: u64 = 4 << 30;

/// More than any disk holds.
const MOST_TEMP: u64 = 1 << 50;

/// More threads than any machine has cores for.
const MOST_WORKERS: u32 = 1024;

pub(super) fn read(table: Option<Table<'_>>, cx: &Context<'_>) -> ServerSettings {
    let mut settings = ServerSettings {
        workers: one_a_core(),
        shutdown_grace: Duration::from_secs(30),
        drain_delay: Duration::ZERO,
        temp: TempSettings { directory: None, limit: TEMP_LIMIT },
        state_directory: state_directory(cx.base, &cx.file.name, cx.outside),
    };
    if let Some(table) = table {
        settings.workers = table.or("workers", settings.workers, workers);
        settings.shutdown_grace = table.or("shutdown_grace", settings.shutdown_grace, number::duration);
        settings.drain_delay = table.or("drain_delay", settings.drain_delay, number::duration);
        settings.temp.directory = table.get("temp_directory", |node| value::path(node).map(|path| node.at(path)));
        settings.temp.limit = table.or("temp_limit", TEMP_LIMIT, |node| number::size(node, 0..=MOST_TEMP));
        settings.state_directory = table.or("state_directory", settings.state_directory, value::path);
        table.finish();
    }
    settings
}

/// Beneath the directory that systemd or the system gives for such things, one for each configuration file: two gateways
/// on one machine do not meet there. `file` is the name of the one in `base`, which is absolute.
pub fn state_directory(base: &Path, file: &str, outside: &Outside<'_>) -> PathBuf {
    let variable = |name: &str| (outside.env)(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // systemd gives a list where a unit has several.
    let of_unit = variable("STATE_DIRECTORY").and_then(|list| {
        let list = list.into_os_string().into_string().ok()?;
        list.split(':').next().map(PathBuf::from)
    });
    let of_root = || rustix::process::geteuid().is_root().then(|| PathBuf::from("/var/lib/passerelle"));
    let of_user = || {
        let home = || variable("HOME").map(|home| home.join(".local/state"));
        variable("XDG_STATE_HOME").or_else(home).map(|state| state.join("passerelle"))
    };
    let above = of_unit.or_else(of_root).or_else(of_user).unwrap_or_else(|| base.join(".passerelle"));
    let file = Path::new(file);
    let path = base.join(file.file_name().unwrap_or_default());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, path.as_os_str().as_encoded_bytes());
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let digits = digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}"));
    above.join(format!("{stem}-{}", digits.collect::<String>()))
}

fn workers(node: &Node<'_>) -> Option<NonZeroUsize> {
    let takes = "\"auto\" or an integer from 1 to 1024";
    if !node.is_string() && !node.is_integer() {
        return node.wrong_type(takes);
    }
    if node.is_integer() {
        return number::length(node, MOST_WORKERS);
    }
    let text = node.text(takes)?;
    if text.text == "auto" {
        return Some(one_a_core());
    }
    if text.text.trim().parse::<u64>().is_ok() {
        return number::length(node, MOST_WORKERS);
    }
    node.refuse(format!("{} takes {takes}, not {}", node.key, text.quoted()))
}

fn one_a_core() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
