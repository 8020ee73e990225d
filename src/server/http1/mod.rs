//! HTTP/1.1 towards clients.

use std::rc::Rc;

use super::stream::{ClientStream, Peer};
use super::worker::Worker;

/// Serves one connection to its end.
pub async fn serve(_worker: Rc<Worker>, _stream: ClientStream, _peer: Rc<Peer>) {}
