//! `passerelle check`: the very code that `run` goes through, up to the point where it would bind.

use std::io::Write;
use std::path::Path;

use super::{Exit, print_error, print_problems};
use crate::config::{self, render};
use crate::gateway::Gateway;
use crate::observe::metrics::Metrics;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Human,
    Json,
}

pub(super) fn check(path: &Path, format: Format) -> Exit {
    let (gateway, problems) = config::load(path).build(|settings, problems| {
        let metrics = Metrics::new(settings.server.workers.get());
        Gateway::build(settings, None, &metrics, problems)
    });
    match format {
        Format::Human => print_problems(&problems),
        Format::Json => return finish(print(&render::json(&problems)), gateway.is_some()),
    }
    match gateway {
        Some(gateway) => finish(print(&summary(path, &gateway)), true),
        None => Exit::Wrong,
    }
}

fn finish(printed: std::io::Result<()>, fine: bool) -> Exit {
    if let Err(error) = printed {
        print_error(&format!("passerelle: cannot write to standard output: {error}\n"));
        return Exit::Failed;
    }
    if fine { Exit::Fine } else { Exit::Wrong }
}

fn summary(path: &Path, gateway: &Gateway) -> String {
    let settings = &gateway.settings;
    let count = |count: usize, word: &str| match count {
        1 => format!("1 {word}"),
        _ => format!("{count} {word}s"),
    };
    let (apps, upstreams) = (settings.apps.len(), settings.upstreams.len().saturating_sub(settings.apps.len()));
    // Each kind of what routes may lead to, where there is any.
    let pools = [(upstreams, "upstream"), (apps, "app")].map(|(number, word)| match number {
        0 => String::new(),
        _ => format!("{}, ", count(number, word)),
    });
    format!(
        "{}: ok, {}, {}{}\n",
        path.display(),
        count(settings.listeners.len(), "listener"),
        pools.concat(),
        count(settings.routes.len(), "route"),
    )
}

fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
