//! Documents that upstreams publish, fetched and refreshed on the control plane's runtime.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::openapi::published::Published;
use crate::gateway::Gateway;
use crate::observe::metrics::DocumentFetch;
use crate::upstream::Upstream;
use crate::upstream::fetch::{FetchFailure, Fetched, fetch};

/// How often a document is looked at again.
const REFRESH: Duration = Duration::from_secs(60);
/// Between attempts while there is none: from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Between two attempts, whatever requests hint at.
const COOL_DOWN: Duration = Duration::from_secs(2);
/// For one attempt.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a document.
const LARGEST: usize = super::openapi::MAX_DOCUMENT;

/// The tasks of all documents; they end when this is dropped.
#[derive(Default)]
pub struct Background {
    /// By the name of the route.
    running: HashMap<Arc<str>, Running>,
}

struct Running {
    document: Arc<Published>,
    upstream: watch::Sender<Arc<Upstream>>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Background {
    /// Makes the tasks fit `gateway`, as those of auths are. Does not wait: an upstream may start later than we do.
    /// Documents that are there already are looked at again at once.
    pub async fn apply(&mut self, gateway: &Gateway) {
        let mut running = HashMap::new();
        for route in gateway.routes.iter() {
            let openapi = route.validation.as_ref().and_then(|validation| validation.openapi());
            let Some((document, upstream)) = openapi.and_then(|openapi| openapi.published()) else { continue };
            let before = self.running.remove(&route.name).filter(|before| Arc::ptr_eq(&before.document, document));
            let kept = match before {
                Some(before) => {
                    before.upstream.send_replace(Arc::clone(upstream));
                    before
                }
                None => start(document, upstream),
            };
            running.insert(Arc::clone(&route.name), kept);
        }
        self.running = running;
    }
}

fn start(document: &Arc<Published>, upstream: &Arc<Upstream>) -> Running {
    let (sender, upstream) = watch::channel(Arc::clone(upstream));
    let task = tokio::spawn(keep(Arc::clone(document), upstream));
    Running { document: Arc::clone(document), upstream: sender, task }
}

/// Keeps a document fresh, from the upstream as the newest snapshot has it.
async fn keep(document: Arc<Published>, mut upstream: watch::Receiver<Arc<Upstream>>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let from = Arc::clone(&upstream.borrow_and_update());
        let tag = document.tag();
        let next = match fetch(&from, &document.path, tag.as_ref(), LARGEST, PATIENCE).await {
            Ok(Fetched::Unchanged) => {
                document.unchanged();
                REFRESH
            }
            Ok(Fetched::Text { text, tag }) => {
                document.came(text, tag).await;
                REFRESH
            }
            Err(FetchFailure(why)) => {
                document.failed(DocumentFetch::Unreachable, &why);
                LONGEST_PAUSE
            }
        };
        let next = if document.is_there() {
            pause = FIRST_PAUSE;
            // Within a tenth, so that many gateways do not fall into step.
            next.mul_f64(0.9 + 0.2 * fastrand::f64())
        } else {
            let now = pause;
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            now
        };
        let hinted = async {
            sleep_until(began + COOL_DOWN).await;
            document.hinted().await;
        };
        tokio::select! {
            () = sleep(next) => {}
            () = hinted => {}
            changed = upstream.changed() => if changed.is_err() { return },
        }
    }
}
