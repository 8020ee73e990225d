//! Settings of bodies that are held: `buffer` and `temp_directory`.

use std::path::PathBuf;
use std::time::Duration;

use super::At;

/// `buffer` of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferSettings {
    /// A request's body comes whole before a server is bothered with it.
    pub request: bool,
    /// A response's body is taken off the server as fast as that writes it.
    pub response: bool,
    /// Bytes of one body in memory.
    pub memory: usize,
    /// Bytes of one body in its temporary file.
    pub disk: u64,
    /// A response of unknown length that pauses for longer is a stream.
    pub stream_after: Duration,
}

impl Default for BufferSettings {
    fn default() -> BufferSettings {
        BufferSettings {
            request: true,
            response: true,
            memory: 64 * 1024,
            disk: 1 << 30,
            stream_after: Duration::from_secs(1),
        }
    }
}

/// Where bodies go that outgrow memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TempSettings {
    /// `None`: the system's.
    pub directory: Option<At<PathBuf>>,
    /// Bytes of all together.
    pub limit: u64,
}
