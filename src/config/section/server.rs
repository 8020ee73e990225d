//! `[server]`

use std::num::NonZeroUsize;
use std::time::Duration;

use super::super::node::Node;
use super::super::reader::Table;
use super::super::settings::{ServerSettings, TempSettings};
use super::super::value::{self, number};

/// The default of `temp_limit`.
const TEMP_LIMIT: u64 = 4 << 30;

/// More than any disk holds.
const MOST_TEMP: u64 = 1 << 50;

/// More threads than any machine has cores for.
const MOST_WORKERS: u32 = 1024;

pub(super) fn read(table: Option<Table<'_>>) -> ServerSettings {
    let mut settings = ServerSettings {
        workers: one_a_core(),
        shutdown_grace: Duration::from_secs(30),
        drain_delay: Duration::ZERO,
        temp: TempSettings { directory: None, limit: TEMP_LIMIT },
    };
    if let Some(table) = table {
        settings.workers = table.or("workers", settings.workers, workers);
        settings.shutdown_grace = table.or("shutdown_grace", settings.shutdown_grace, number::duration);
        settings.drain_delay = table.or("drain_delay", settings.drain_delay, number::duration);
        settings.temp.directory = table.get("temp_directory", |node| value::path(node).map(|path| node.at(path)));
        settings.temp.limit = table.or("temp_limit", TEMP_LIMIT, |node| number::size(node, 0..=MOST_TEMP));
        table.finish();
    }
    settings
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
