//! Identities that a worker has seen proved: a repeat of the same credential costs a digest and a look-up.

/// The cache of one worker.
#[derive(Default)]
pub struct Verified {}
