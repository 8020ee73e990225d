//! Requests that nobody wants any more, while their server works on them.
//!
//! A worker that serves one request at a time goes on with it all the same: it finds out when it writes its answer. Until
//! then it is busy, and a slot that were given to another request would only have that wait inside the server, where
//! nothing is known of deadlines and of clients that leave. So where slots are bounded, the slot stays taken until the
//! server says something or closes. Servers that watch their connections close at once: they are told, by the end of
//! what is sent to them.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Connection;
use crate::upstream::Lease;

/// Holds the slot and the connection until the server is done with the request, for at most `patience`.
pub(super) fn see_out(mut connection: Box<Connection>, lease: Lease, patience: Duration) {
    // A worker that ends has no tasks any more.
    if lease.server().slots.limit().is_none() || tokio::runtime::Handle::try_current().is_err() {
        return;
    }
    tokio::task::spawn_local(async move {
        let done = async {
            // Whatever comes of it: a server that is gone ends the reading too.
            let _ = connection.stream.shutdown().await;
            let _ = connection.stream.read_u8().await;
        };
        // In vain: it is given up like any request that takes too long.
        let _ = tokio::time::timeout(patience, done).await;
        drop(connection);
        drop(lease);
    });
}
