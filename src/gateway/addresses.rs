//! No address is listened to twice.

use crate::config::problem::Problem;
use crate::config::settings::{At, ListenAddress, Settings};
use crate::config::source::Span;
use crate::server::bind::SocketKey;

/// Adds a problem for each address that clashes with one before it.
pub(super) fn check(settings: &Settings, problems: &mut Vec<Problem>) {
    let mut taken: Vec<(SocketKey, String)> = Vec::new();
    let mut take = |key: SocketKey, holder: String, span: &Span| {
        if let Some((other, by)) = taken.iter().find(|(other, _)| other.overlaps(&key)) {
            let message = format!("`{key}` clashes with `{other}` of {by}");
            problems.push(Problem::error(span, message).help("Give each its own address or port"));
        } else {
            taken.push((key, holder));
        }
    };
    let admin = [("[admin] address", Some(&settings.admin.address))]
        .into_iter()
        .chain([("[admin] probe_address", settings.admin.probe_address.as_ref())]);
    for (holder, address) in admin {
        if let Some(At { value, span }) = address {
            take(SocketKey::new(&ListenAddress::Socket(*value), holder, 0), holder.to_owned(), span);
        }
    }
    for (name, listener) in &settings.listeners {
        for (index, address) in listener.addresses.iter().enumerate() {
            take(SocketKey::new(&address.value, name, index), format!("[listener.{name}]"), &address.span);
        }
    }
}
