//! `buffer` and `min_upload_rate`.

use std::num::NonZeroU64;

use super::super::node::Node;
use super::super::settings::BufferSettings;
use super::super::value::number;

/// More of one body in memory is no buffer any more.
const MOST_MEMORY: u64 = 1 << 30;

/// More than any disk holds.
const MOST_DISK: u64 = 1 << 50;

/// What is written, each key over that of `defaults`.
pub(super) fn read(node: &Node<'_>, defaults: &BufferSettings) -> Option<BufferSettings> {
    if !node.is_table() {
        let help = match node.is_true() {
            true => "leave it out: bodies are buffered unless it is turned off",
            false => "to turn it off, write { request = false, response = false }",
        };
        return node.wrong_type_with("a table", help);
    }
    let table = node.table()?;
    let settings = BufferSettings {
        request: table.or("request", defaults.request, Node::boolean),
        response: table.or("response", defaults.response, Node::boolean),
        memory: table.or("memory", defaults.memory, |node| number::memory_size(node, 0..=MOST_MEMORY)),
        disk: table.or("disk", defaults.disk, |node| number::size(node, 0..=MOST_DISK)),
        stream_after: table.or("stream_after", defaults.stream_after, number::duration),
    };
    table.finish();
    Some(settings)
}

/// Bytes a second; `None` in it: any.
pub(super) fn min_upload_rate(node: &Node<'_>) -> Option<Option<NonZeroU64>> {
    if node.literal() == Some("off") {
        return Some(None);
    }
    number::speed(node).map(Some)
}
