//! A document that an upstream publishes: the last good one, and how its fetching fares.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::api::Api;
use super::{compile, told};
use crate::admit::digest::{Digest, digest};
use crate::config::settings::At;
use crate::observe::metrics::{DocumentFetch, DocumentMetrics, Metrics};
use crate::upstream::Upstream;

/// The document of a route, as long as snapshots have it.
pub struct Published {
    pub route: Arc<str>,
    /// Of the upstream, with its query.
    pub path: String,
    /// The path as people may see it.
    pub shown: String,
    newest: ArcSwapOption<Api>,
    /// Whether the route demands the scopes that it names; for the log.
    demands_scopes: AtomicBool,
    /// Told when a request hints at a newer document.
    changed: Notify,
    /// Not looked at by requests, unless there is no document.
    standing: Mutex<Standing>,
    metrics: Arc<DocumentMetrics>,
}

/// How the fetching fares.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// When a good document was last got, or was last said to be unchanged.
    pub fetched: Option<SystemTime>,
    pub operations: usize,
    /// Why the last attempt failed.
    pub failing: Option<String>,
    /// The text in use, and what its server calls it.
    text: Option<Bytes>,
    tag: Option<HeaderValue>,
    /// The text that could not be used, if that was the last.
    refused: Option<Refused>,
}

#[derive(Clone, Debug)]
struct Refused {
    digest: Digest,
    at: Instant,
    why: String,
}

#[cfg(test)]
impl Standing {
    pub(super) fn refused_at(&self) -> Option<Instant> {
        self.refused.as_ref().map(|refused| refused.at)
    }
}

/// A text that could not be used is not looked into again before this, however often it is asked for: that takes a while.
/// Later it is, since it may have been no more than a busy machine that it took too long on.
const REFUSED: Duration = Duration::from_secs(5 * 60);

impl Published {
    pub(super) fn new(route: &str, path: &At<String>, metrics: &Metrics) -> Published {
        let shown = if path.span.is_secret() { "(secret)".to_owned() } else { path.value.clone() };
        Published {
            route: Arc::from(route),
            path: path.value.clone(),
            shown,
            newest: ArcSwapOption::empty(),
            demands_scopes: AtomicBool::new(false),
            changed: Notify::new(),
            standing: Mutex::default(),
            metrics: metrics.document(route),
        }
    }

    pub(super) fn demand_scopes(&self, demands: bool) {
        self.demands_scopes.store(demands, Ordering::Relaxed);
    }

    /// Whether it is that of the next snapshot too: the same path of an upstream that still has one of its servers.
    pub(super) fn is_of(&self, path: &str, before: &Upstream, upstream: &Upstream) -> bool {
        let servers = |upstream: &Upstream| {
            upstream.settings.servers.iter().map(|server| server.value.endpoint.clone()).collect::<Vec<_>>()
        };
        let (before_servers, servers) = (servers(before), servers(upstream));
        self.path == path
            && before.name == upstream.name
            && servers.iter().any(|server| before_servers.contains(server))
    }

    /// Whether there is a document that was good.
    pub fn is_there(&self) -> bool {
        self.newest.load().is_some()
    }

    /// The last good document.
    pub(super) fn newest(&self) -> Option<Arc<Api>> {
        self.newest.load_full()
    }

    pub fn standing(&self) -> Standing {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For the log.
    pub(super) fn why_there_is_none(&self) -> String {
        let why = self.standing().failing.unwrap_or_else(|| "it is being fetched".to_owned());
        format!("there is no document from {}: {why}", self.shown)
    }

    /// A request was for an operation that the document does not have.
    pub(super) fn may_have_changed(&self) {
        self.changed.notify_one();
    }

    /// Waits for a hint that there may be a newer one.
    pub(in super::super) async fn hinted(&self) {
        self.changed.notified().await;
    }

    /// What the document in use is called by its server.
    pub(in super::super) fn tag(&self) -> Option<HeaderValue> {
        self.standing().tag
    }

    /// The server says that it has not changed.
    pub(in super::super) fn unchanged(&self) {
        self.note(DocumentFetch::Unchanged, |standing| {
            standing.fetched = Some(SystemTime::now());
            standing.failing = None;
        });
    }

    /// A text came. It is compiled beside, since that takes a while.
    pub(in super::super) async fn came(&self, text: Bytes, tag: Option<HeaderValue>) {
        if self.standing().text.as_ref() == Some(&text) {
            return self.unchanged();
        }
        let digest = digest([text.as_ref()]);
        let again = |refused: &Refused| refused.digest == digest && refused.at.elapsed() < REFUSED;
        if let Some(Refused { why, .. }) = self.standing().refused.filter(again) {
            return self.failed(DocumentFetch::Unusable, &why);
        }
        let compiling = text.clone();
        let compiled = tokio::task::spawn_blocking(move || compile("", &compiling, &[])).await;
        match compiled {
            Ok(Ok(api)) => {
                let operations = api.operations();
                let (left_out, unscoped) = (api.left_out.clone(), api.unscoped.clone());
                self.newest.store(Some(Arc::new(api)));
                let before = self.note(DocumentFetch::Success, |standing| {
                    *standing = Standing {
                        fetched: Some(SystemTime::now()),
                        operations,
                        failing: None,
                        text: Some(text),
                        tag,
                        refused: None,
                    };
                });
                let new = if before.text.is_none() { "fetched" } else { "changed" };
                tracing::info!(route = &*self.route, path = self.shown, operations, "OpenAPI document {new}");
                self.warn(&left_out, &unscoped);
            }
            Ok(Err(unusable)) => {
                let why = unusable.to_string();
                self.failed(DocumentFetch::Unusable, &why);
                let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
                standing.refused = Some(Refused { digest, at: Instant::now(), why });
            }
            Err(_) => self.failed(DocumentFetch::Unusable, "it could not be read: this is a defect of the gateway"),
        }
    }

    /// Of what a document says and that does not hold as it may be meant.
    fn warn(&self, left_out: &[String], unscoped: &[String]) {
        let (route, path) = (&*self.route, &self.shown);
        if !left_out.is_empty() {
            let patterns = told(left_out);
            tracing::warn!(route, path, patterns, "patterns that cannot be matched in linear time are left out");
        }
        if !unscoped.is_empty() && self.demands_scopes.load(Ordering::Relaxed) {
            let places = told(unscoped);
            tracing::warn!(
                route,
                path,
                places,
                "beside the ways in that demand scopes there are some that demand none"
            );
        }
    }

    /// There is no new one.
    pub(in super::super) fn failed(&self, result: DocumentFetch, why: &str) {
        let before = self.note(result, |standing| standing.failing = Some(why.to_owned()));
        // Once for each reason: it is tried again and again.
        if before.failing.as_deref() != Some(why) {
            let use_before = before.text.is_some();
            tracing::warn!(
                route = &*self.route,
                path = self.shown,
                reason = why,
                last_good_kept = use_before,
                "the OpenAPI document cannot be had from the upstream"
            );
        }
    }

    /// What it was before.
    fn note(&self, result: DocumentFetch, change: impl FnOnce(&mut Standing)) -> Standing {
        self.metrics.fetched(result);
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = standing.clone();
        change(&mut standing);
        before
    }
}
