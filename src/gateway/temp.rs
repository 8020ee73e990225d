//! `[server] temp_directory`: found out when a snapshot is built, not by the first large body.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::body::Spool;
use crate::config::problem::Problem;
use crate::config::settings::{At, Settings};
use crate::config::source::Span;
use crate::observe::metrics::Metrics;

/// Makes a file in the directory, which is gone before anybody could see it.
pub(super) fn build(
    settings: &Settings,
    before: Option<&Spool>,
    metrics: &Metrics,
    problems: &mut Vec<Problem>,
) -> Spool {
    let temp = &settings.server.temp;
    let directory = temp.directory.as_ref().map_or_else(system_directory, |directory| directory.value.clone());
    let spool = Spool::new(directory, temp.limit, Arc::clone(metrics.spool()));
    if let Err(error) = spool.try_directory() {
        problems.extend(unusable(settings, spool.directory(), &error));
    }
    match before {
        Some(before) => spool.after(before),
        None => spool,
    }
}

/// One that is named has to be there. Without the system's, which a read-only container may lack, everything works but
/// bodies that outgrow memory.
fn unusable(settings: &Settings, directory: &Path, error: &std::io::Error) -> Option<Problem> {
    let message = format!("no temporary file can be made in `{}`: {error}", directory.display());
    if let Some(At { span, .. }) = &settings.server.temp.directory {
        let help = "temp_directory of [server] must be there, and the user that the gateway runs as must be able to \
                    write to it";
        return Some(Problem::error(span, message).help(help));
    }
    let needs = settings.routes.values().find(|route| {
        let holds = route.buffer.request || route.buffer.response;
        holds && route.buffer.disk > 0 && route.action.upstream().is_some()
    })?;
    let help = "bodies that outgrow memory need one: name it as temp_directory in [server]";
    Some(Problem::warning(&Span::whole_file(&needs.path.span.file), message).help(help))
}

/// `TMPDIR`; else the place for larger files: on many systems `/tmp` is memory.
fn system_directory() -> PathBuf {
    if let Some(named) = std::env::var_os("TMPDIR").filter(|named| !named.is_empty()) {
        return PathBuf::from(named);
    }
    let large = Path::new("/var/tmp");
    if large.is_dir() { large.to_owned() } else { std::env::temp_dir() }
}
