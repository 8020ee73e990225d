//! Small configurations for the tests of this module.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::{Lifecycle, ReloadRequest, Shared};
use crate::app::background::Apps;
use crate::aside::Aside;
use crate::config::settings::{At, Settings};
use crate::config::source::{SourceFile, Span};
use crate::config::{Outside, load_text};
use crate::gateway::Gateway;
use crate::observe::metrics::Metrics;

/// A configuration whose `[admin]` has these lines more.
fn settings(admin: &str) -> Settings {
    let text = format!(
        "[admin]\naddress = \"127.0.0.1:0\"\n{admin}\n\
         [listener.http]\naddress = \"127.0.0.1:0\"\n\
         [upstream.orders]\nservers = [\"http://127.0.0.1:8001\"]\n\
         [route.orders]\nhost = \"api.example.com\"\npath = \"/orders/{{*rest}}\"\nupstream = \"orders\"\n\
         [route.moved]\npath = \"/moved\"\nredirect = {{ to = \"https://example.com/hidden\", status = 308 }}\n"
    );
    let loaded = load_text("test.toml", &text, Path::new("/"), &Outside::new(&|_| None));
    let (settings, problems) = loaded.build(|settings, _| Some(settings));
    settings.unwrap_or_else(|| panic!("{problems:?}"))
}

pub(super) fn with_token(token: Option<&str>) -> Settings {
    settings(&token.map(|token| format!("token = \"{token}\"")).unwrap_or_default())
}

pub(super) fn requiring(upstream: &str) -> Settings {
    settings(&format!("ready_requires = [\"{upstream}\"]"))
}

pub(super) fn gateway(settings: Settings) -> Gateway {
    let mut problems = Vec::new();
    Gateway::build(settings, None, &Metrics::new(1), &mut problems).unwrap_or_else(|| panic!("{problems:?}"))
}

pub(super) fn shared(settings: Settings) -> Arc<Shared> {
    shared_and_requests(settings).0
}

/// A process that serves.
pub(super) fn shared_and_requests(settings: Settings) -> (Arc<Shared>, mpsc::Receiver<ReloadRequest>) {
    let lifecycle = Lifecycle::new();
    lifecycle.bound(BTreeMap::from([(Arc::from("http"), vec!["127.0.0.1:8080".parse().unwrap()])]));
    let newest = Arc::new(ArcSwap::from_pointee(gateway(settings)));
    Shared::new(newest, Metrics::new(1), Arc::new(lifecycle), Apps::default(), Aside::start("metrics").unwrap())
}

pub(super) fn at<T>(value: T) -> At<T> {
    At { value, span: Span::whole_file(&Arc::new(SourceFile::new("test.toml", ""))) }
}
