//! What tests of this module need again and again.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::WorkerId;
use super::worker::Worker;
use crate::config::source::{SourceFile, Span};
use crate::config::{Outside, load_text};
use crate::gateway::Gateway;
use crate::observe::metrics::Metrics;

/// A place in a file.
pub(crate) fn span() -> Span {
    Span::whole_file(&Arc::new(SourceFile::new("test.toml", "")))
}

/// The snapshot of `text`, to which `[admin]` is added.
pub(crate) fn gateway(text: &str, before: Option<&Gateway>, metrics: &Metrics) -> Gateway {
    let text = format!("[admin]\naddress = \"127.0.0.1:0\"\n{text}");
    let loaded = load_text("test.toml", &text, Path::new("/"), &Outside::new(&|_| None));
    let (gateway, problems) = loaded.build(|settings, problems| Gateway::build(settings, before, metrics, problems));
    gateway.unwrap_or_else(|| panic!("{problems:?}"))
}

/// A worker without a thread of its own.
pub(crate) fn worker(text: &str) -> Worker {
    let metrics = Metrics::new(1);
    let newest = Arc::new(ArcSwap::from_pointee(gateway(text, None, &metrics)));
    Worker::new(WorkerId(0), newest, metrics)
}
