//! `[store.NAME]`

use std::time::Duration;

use super::super::node::Node;
use super::super::problem::Problem;
use super::super::reader::Table;
use super::super::settings::{StoreSettings, WhenUnreachable};
use super::super::value::{self, choice, number, store_url};

const WHEN_UNREACHABLE: [(&str, WhenUnreachable); 3] =
    [("local", WhenUnreachable::Local), ("allow", WhenUnreachable::Allow), ("deny", WhenUnreachable::Deny)];

/// Every request waits for the store, each time it is asked.
const LONG: Duration = Duration::from_secs(1);

pub(super) fn read(table: Table<'_>) -> Option<StoreSettings> {
    let url = table.require("url", "\"redis://127.0.0.1:6379\"", store_url::store_url);
    let ca = table.node("ca");
    if let (Some(url), Some(ca)) = (&url, &ca)
        && !url.tls
    {
        let problem = Problem::error(&table.cx.span(&ca.key_range), "`ca` has no effect: this store is not rediss://");
        table.cx.report(problem.help("write the URL as rediss://HOST:PORT, or leave `ca` out"));
    }
    let timeout = table.or("timeout", Duration::from_millis(5), timeout);
    let when_unreachable =
        table.or("when_unreachable", WhenUnreachable::Local, |node| choice::choice(node, &WHEN_UNREACHABLE));
    let ca = ca.and_then(|node| value::path(&node).map(|path| node.at(path)));
    let span = table.span();
    table.finish();
    url.map(|url| StoreSettings { span, url, timeout, when_unreachable, ca })
}

fn timeout(node: &Node<'_>) -> Option<Duration> {
    let timeout = number::timeout(node)?;
    if timeout > LONG {
        let problem = Problem::warning(&node.span(), "requests wait so long for each decision while the store hangs");
        node.cx.report(problem.help("some milliseconds are enough for a store nearby: timeout = \"5ms\""));
    }
    Some(timeout)
}
