//! What would become of a request, step by step, without sending anything.
//!
//! A request that is only asked about goes through the same decisions as one that comes (`request/decisions.rs`, the
//! gate, validation, the balancer's choice), in the same order; each decision is told with the line of the file that
//! made it. Nobody is contacted: where only an issuer, an introspection server or a store could say, that is said, and
//! the rest goes on under that condition. Nothing is counted, and no credential or secret of the file is told.

mod admission;
mod asked;
mod body;
mod credentials;
mod explanation;
mod files;
mod forwarding;
mod render;
mod sent;
mod walk;
mod wording;

pub use self::asked::{Asked, Unaskable};
pub use self::explanation::{Decision, Explanation, InForce, Outcome, Place, Refusal, Sent, Step};
use self::walk::Walk;
pub(crate) use self::wording::without_userinfo;
use crate::gateway::Gateway;

/// What is known beside the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nothing: the gateway does not run, or is not asked.
    Offline,
    /// The snapshot is in force: its servers, limits and keys are as they are now.
    Live,
}

/// Explains what `gateway` would do with the request.
///
/// # Errors
/// What was asked is nothing that can be explained.
pub async fn explain(gateway: &Gateway, asked: &Asked, moment: Moment) -> Result<Explanation, Unaskable> {
    asked.check()?;
    let (name, listener) = asked.arrives_at(gateway)?;
    let mut walk = Walk::new(gateway, moment);
    let outcome = walk.go(asked, name, listener).await;
    Ok(walk.finish(asked, outcome))
}
