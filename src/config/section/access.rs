//! Whom a route lets in: its `auth`, `roles` and `scopes`.

use super::super::node::Node;
use super::super::problem::Problem;
use super::super::reader::Table;
use super::super::settings::{Access, At, Demands};
use super::super::suggest;
use super::{Known, auth, unmet};

const TAKES: &str = "\"public\" or a list of names such as [\"staff\"]";

pub(super) fn read(table: &Table<'_>, known: Known<'_>) -> Option<Access> {
    let node = table.node("auth");
    let access = match &node {
        Some(node) => listed(node),
        None if known.protected && !table.has_slip_of("auth") => {
            let problem = Problem::error(&table.span(), "this route does not say whom it lets in");
            let help = "add auth = [\"NAME\"], or auth = \"public\" to open it: once there is any [auth.NAME] a route \
                        that forgets it would be open to everybody";
            table.cx.report_missing(problem.help(help));
            None
        }
        None => Some(None),
    };
    let roles = table.get("roles", |node| not_empty(node, auth::names(node, "a list of roles such as [\"reader\"]")?));
    let scopes = table.get("scopes", |node| not_empty(node, auth::scopes(node)?));
    let broken = (table.has("roles") && roles.is_none()) || (table.has("scopes") && scopes.is_none());
    let access = access.filter(|_| !broken)?;
    match access {
        Some(auths) => {
            unmet::warn(table, &auths, known);
            let (roles, scopes) = (roles.unwrap_or_default(), scopes.unwrap_or_default());
            Some(Access::Demands(Demands { auths, roles, scopes }))
        }
        None => {
            let mut fine = true;
            for key in ["roles", "scopes"] {
                if let Some(node) = table.node(key) {
                    fine = false;
                    let message = format!("{} demands an `auth`: nobody says who the caller is", node.key);
                    let problem = Problem::error(&table.cx.span(&node.key_range), message);
                    table.cx.report(problem.help("add auth = [\"NAME\"] with the [auth.NAME] that knows"));
                }
            }
            fine.then_some(Access::Public)
        }
    }
}

/// `Some(None)`: public.
fn listed(node: &Node<'_>) -> Option<Option<Vec<At<String>>>> {
    if node.is_string() {
        let text = node.text(TAKES)?;
        if text.text == "public" {
            return Some(None);
        }
        let help = match suggest::closest(&text.text, ["public"]).filter(|_| !text.secret) {
            Some(_) => "did you mean \"public\"?".to_owned(),
            None if text.secret => "names stand in a list: [\"NAME\"]".to_owned(),
            None => format!("names stand in a list: auth = [\"{}\"]", text.text.escape_debug()),
        };
        return node.refuse_with(format!("{} takes {TAKES}, not {}", node.key, text.quoted()), help);
    }
    let names = node.list_of(TAKES, |member| {
        let text = member.text("the name of an [auth.NAME]")?;
        if text.text == "public" {
            return member.refuse_with("\"public\" stands alone: auth = \"public\"", "a route is open, or it is not");
        }
        Some(member.at(text.text))
    })?;
    if names.is_empty() {
        return node.refuse_with(format!("{} is empty", node.key), "auth = \"public\" opens a route");
    }
    for (index, name) in names.iter().enumerate() {
        if let Some(earlier) = names.iter().take(index).find(|earlier| earlier.value == name.value) {
            let problem = Problem::error(&name.span, "this auth is listed twice").also(&earlier.span, "here first");
            node.cx.report(problem);
        }
    }
    Some(Some(names))
}

/// An empty list could be read as "nobody" and as "anybody".
fn not_empty(node: &Node<'_>, names: Vec<String>) -> Option<Vec<String>> {
    if names.is_empty() { node.refuse(format!("{} is empty", node.key)) } else { Some(names) }
}
