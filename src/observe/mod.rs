//! What the gateway tells about itself: metrics, access records, logs.

pub mod access;
pub mod log;
pub mod metrics;
pub mod timestamp;
pub mod trouble;
