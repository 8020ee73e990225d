//! What tests of this module need again and again.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::config::{Outside, load_text};
use crate::gateway::Gateway;
use crate::observe::metrics::Metrics;
use crate::observe::metrics::WorkerId;
use crate::worker::Worker;

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

/// A server that does to each connection what `then` does.
pub(crate) async fn backend<F: Future<Output = ()> + 'static>(then: impl Fn(TcpStream) -> F + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn_local(then(stream));
        }
    });
    address
}
