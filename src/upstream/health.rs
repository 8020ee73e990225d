//! Whether a server may take requests: active probes, passive ejection, slow return. Busy is not dead.

/// What is known of a server's health. Read on every choice, so atomics only.
#[derive(Debug, Default)]
pub struct Health {}

/// How an attempt failed, as far as the server's health is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connection could not be made.
    Connect,
    /// The connection broke, or what came was not HTTP, before a response was complete.
    Broken,
    /// No response head in time: the server may be busy.
    Timeout,
}

impl Health {
    /// A response head came.
    pub fn answered(&self) {}

    /// An attempt failed.
    pub fn failed(&self, _failure: Failure) {}
}
