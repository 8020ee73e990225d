//! The kinds of value that the configuration language has, each read from one node.

pub(super) mod choice;
pub(super) mod fetch_url;
pub(super) mod http;
pub(super) mod net;
pub(super) mod number;
pub(super) mod pattern;
pub(super) mod server_url;
pub(super) mod store_url;

use std::path::PathBuf;

use super::node::Node;

/// A path, made absolute.
pub(super) fn path(node: &Node<'_>) -> Option<PathBuf> {
    let text = node.text("a path")?;
    if text.text.is_empty() {
        return node.refuse(format!("{} is empty", node.key));
    }
    if text.text.contains('\0') {
        return node.refuse(format!("{} holds a NUL byte", node.key));
    }
    Some(node.cx.base.join(&text.text))
}

/// The longest path that the address of a Unix socket can hold.
pub(super) const SOCKET_PATH_MAX: usize = 107;

/// The path of a Unix socket, made absolute.
pub(super) fn socket_path(node: &Node<'_>) -> Option<PathBuf> {
    fits_socket(node, path(node)?)
}

pub(super) fn fits_socket(node: &Node<'_>, path: PathBuf) -> Option<PathBuf> {
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        return node.refuse_with(
            format!("the path of a Unix socket has at most {SOCKET_PATH_MAX} bytes"),
            "a relative path counts together with this file's directory",
        );
    }
    Some(path)
}
