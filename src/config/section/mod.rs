//! The sections of the file, one file each.

mod access;
mod admin;
mod app;
mod auth;
mod buffer;
mod cors;
mod defaults;
mod files;
mod headers;
mod limit;
mod listener;
mod log;
mod route;
mod server;
mod store;
mod unmet;
mod upstream;
mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

pub(super) use self::auth::api_keys;
pub use self::auth::{wrong_key_name, wrong_scope};
pub use self::server::state_directory;
use super::node::Node;
use super::problem::Problem;
use super::reader::Table;
use super::settings::{At, AuthSettings, Settings};
use super::value;

/// The default of `max_connections` and of `max_upgraded`.
const TEN_THOUSAND: NonZeroUsize = match NonZeroUsize::new(10_000) {
    Some(value) => value,
    None => NonZeroUsize::MIN,
};

/// The control socket in the state directory, where `[admin]` names none and there are apps.
pub const CONTROL_SOCKET: &str = "control.sock";

/// What the file says, as far as it could be read.
pub(super) struct Draft {
    pub(super) settings: Settings,
    /// Routes that could not be read whole are not among the settings; rules that need all of them do not hold then.
    pub(super) complete: bool,
    /// Every `[upstream.NAME]` and `[app.NAME]`, those that could not be read among them; and so on.
    pub(super) upstreams: BTreeSet<String>,
    pub(super) auths: BTreeSet<String>,
    pub(super) limits: BTreeSet<String>,
    /// What `[defaults]` lists, though every route may list others.
    pub(super) default_limits: Vec<At<String>>,
    pub(super) stores: BTreeSet<String>,
}

/// What routes need to know of `[auth.NAME]`.
#[derive(Clone, Copy)]
struct Known<'k> {
    /// Whether there is any, so that a route says whom it lets in.
    protected: bool,
    /// Those that could be read.
    auths: &'k BTreeMap<String, AuthSettings>,
}

/// Reads the whole file.
pub(super) fn read(root: Table<'_>) -> Draft {
    let server = server::read(root.get("server", Node::table), root.cx);
    let mut admin = admin::read(root.get("admin", Node::table), &root);
    let log = log::read(root.get("log", Node::table));
    let defaults = defaults::read(root.get("defaults", Node::table));
    let (listeners, listeners_whole) = named(&root, "listener", listener::read);
    let (mut upstreams, upstreams_whole) = named(&root, "upstream", upstream::read);
    let (apps, apps_whole) = named(&root, "app", app::read);
    let upstream_names = upstream_names(&root);
    let apps = apps.into_iter().map(|(name, app)| {
        // One of both sections has been told.
        upstreams.entry(name.clone()).or_insert(app.upstream);
        (name, app.settings)
    });
    let apps = apps.collect();
    if !names(root.node("app")).is_empty() && admin.control.is_none() {
        admin.control = control_beside(&server.state_directory, &root);
    }
    let auth_names = names(root.node("auth"));
    let (auths, auths_whole) = named(&root, "auth", auth::read);
    let limit_names = names(root.node("limit"));
    let (limits, limits_whole) = named(&root, "limit", limit::read);
    let store_names = names(root.node("store"));
    let (stores, stores_whole) = named(&root, "store", store::read);
    let known = Known { protected: !auth_names.is_empty(), auths: &auths };
    let (routes, routes_whole) = named(&root, "route", |table| route::read(table, &defaults, known));
    let lines = root.lines();
    root.finish();
    Draft {
        settings: Settings {
            server,
            admin,
            log,
            listeners,
            upstreams,
            apps,
            auths,
            limits,
            stores,
            routes,
            answers: defaults.answers(),
            lines,
        },
        complete: [listeners_whole, upstreams_whole, apps_whole, auths_whole, limits_whole, stores_whole, routes_whole]
            .iter()
            .all(|whole| *whole),
        upstreams: upstream_names,
        auths: auth_names,
        limits: limit_names,
        default_limits: defaults.limits,
        stores: store_names,
    }
}

/// Reads each `[SECTION.NAME]`; the second value says whether every one could be read.
fn named<'a, T>(
    root: &Table<'a>,
    section: &'static str,
    mut read: impl FnMut(Table<'a>) -> Option<T>,
) -> (BTreeMap<String, T>, bool) {
    let mut all = BTreeMap::new();
    let mut whole = true;
    if let Some(node) = root.node(section) {
        if !node.is_table() {
            node.wrong_type_with::<()>("tables with names", format!("write [{section}.NAME]"));
            return (all, false);
        }
        for (name, node) in node.table().iter().flat_map(Table::entries) {
            let value = check_name(name, &node).and_then(|()| {
                if node.is_table() {
                    node.table()
                } else {
                    node.wrong_type_with("a table", format!("`{section}` holds tables with names: [{section}.NAME]"))
                }
            });
            match value.and_then(&mut read) {
                Some(value) => {
                    all.insert(name.to_owned(), value);
                }
                None => whole = false,
            }
        }
    }
    (all, whole)
}

/// Names are metric labels and stand in logs: short and plain.
fn check_name(name: &str, node: &Node<'_>) -> Option<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if (1..=64).contains(&name.len()) && name.bytes().all(plain) {
        return Some(());
    }
    let shown: String = name.chars().take(80).collect();
    let message = format!("`{}` cannot be a name", shown.escape_debug());
    let help = "names have 1 to 64 letters, digits, `_`, `-` or `.`";
    node.cx.report(Problem::error(&node.cx.span(&node.key_range), message).help(help));
    None
}

/// Every `[upstream.NAME]` and `[app.NAME]`. An app is an upstream of its name, so no name is of both.
fn upstream_names(root: &Table<'_>) -> BTreeSet<String> {
    let mut all = names(root.node("upstream"));
    let Some(section) = root.node("app").filter(Node::is_table) else { return all };
    for (name, node) in section.table().iter().flat_map(Table::entries) {
        if !all.insert(name.to_owned()) {
            let message = format!("`{}` is an upstream already", name.escape_debug());
            let help = "an app is an upstream of its own name: give one of them another";
            node.cx.report(Problem::error(&node.cx.span(&node.key_range), message).help(help));
        }
    }
    all
}

/// Where the commands for apps reach the gateway, whether or not the file says so.
fn control_beside(state: &Path, root: &Table<'_>) -> Option<At<PathBuf>> {
    let path = state.join(CONTROL_SOCKET);
    (path.as_os_str().len() <= value::SOCKET_PATH_MAX).then(|| At { value: path, span: root.span() })
}

fn names(section: Option<Node<'_>>) -> BTreeSet<String> {
    let Some(node) = section.filter(Node::is_table) else {
        return BTreeSet::new();
    };
    node.table().iter().flat_map(Table::entries).map(|(name, _)| name.to_owned()).collect()
}
