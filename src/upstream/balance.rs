//! Which server takes a request.

use std::sync::Arc;

use super::{ChooseBy, Server};
use crate::config::settings::Balance;
use crate::request::rejection::Cause;

pub(super) fn choose(
    servers: &[Arc<Server>],
    _balance: &Balance,
    _by: ChooseBy<'_>,
    tried: &[u64],
) -> Result<Arc<Server>, Cause> {
    servers
        .iter()
        .find(|server| !tried.contains(&server.id))
        .or_else(|| servers.first())
        .cloned()
        .ok_or(Cause::NoHealthyServer)
}
