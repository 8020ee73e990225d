//! What is said once the service serves: where it is, how it fares, what is done with it next, and what may surprise.

use std::path::Path;

use super::KEPT_AS;
use super::command_line::quoted;
use super::sources;
use super::text::{Health, Plan, Tls};

/// What there is, where, and what to do with it.
pub(super) fn greeting(plan: &Plan, workers: u32, watch: bool) -> String {
    let Plan { target, address, tls, admin, .. } = plan;
    let of_many = if workers == 1 { "1 worker".to_owned() } else { format!("{workers} workers") };
    let whom = match &plan.user {
        None => "as your own user".to_owned(),
        Some(user) if is_number(user) => format!("as user {user}, which nothing else runs as"),
        Some(user) => format!("as the user {user}"),
    };
    let mut lines = vec![format!("\nServing {} on {}, {of_many}, {whom}", target.name, plan.url())];
    let shown = match address.ip() {
        ip if ip.is_loopback() || ip.is_unspecified() => format!("localhost:{}", address.port()),
        _ => address.to_string(),
    };
    // One that answers.
    let path = target.but_root.as_ref().map_or("/", |path| plan.health.as_ref().map_or(path.as_str(), Health::path));
    match tls {
        Some(Tls { chain, own: true, .. }) => {
            let chain = quoted(&chain.to_string_lossy());
            lines.push(format!("  Its certificate  {chain}, made here; to trust it:"));
            lines.push(format!("                   curl --cacert {chain} https://{shown}{path}"));
        }
        Some(Tls { own: false, .. }) => {}
        None => lines.push(format!("  To try it        curl http://{shown}{path}")),
    }
    lines.push(format!("  How it fares     http://{admin}/status, http://{admin}/metrics"));
    let file = target.directory.join(KEPT_AS);
    let config = quoted(&file.to_string_lossy());
    lines.push(format!("  Its releases     passerelle apps --config {config}; likewise release, rollback"));
    let space = if plan.asked.is_empty() { "" } else { " " };
    let print = format!("passerelle serve{space}{} --print-config", plan.asked);
    if file.exists() {
        lines.push(format!("  Not read         {config}: it is there, and `passerelle run` reads it"));
        lines.push(format!("  To compare it    {print}"));
    } else {
        lines.push(format!("  To keep it       {print} >{config}"));
    }
    lines.extend(variables(plan));
    lines.extend(data(plan));
    lines.push(match watch {
        true => "  New code is put in place as it is saved. Ctrl-C ends it.\n".to_owned(),
        false => "  Ctrl-C ends it.\n".to_owned(),
    });
    lines.join("\n") + "\n"
}

fn is_number(user: &str) -> bool {
    user.bytes().all(|byte| byte.is_ascii_digit())
}

/// A `.env` that the service may read, and the gateway does not.
fn variables(plan: &Plan) -> Option<String> {
    let env = plan.target.directory.join(".env");
    (plan.env_file.is_none() && env.is_file()).then(|| {
        let env = quoted(&env.to_string_lossy());
        format!("  Not read         {env}, unless the service does: --env-file {env} makes variables of it")
    })
}

/// Databases within the code, of which each release has a copy, and the place for what stays.
fn data(plan: &Plan) -> Vec<String> {
    let directory = &plan.target.directory;
    let home = plan.state.join("apps").join(&plan.target.name).join("home");
    let mut databases = sources::databases(directory);
    // Whoever has moved one there must not do so again.
    databases.retain(|file| !home.join(file.file_name().unwrap_or_default()).exists());
    let Some(first) = databases.first() else { return Vec::new() };
    let all = databases.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
    let file = first.file_name().unwrap_or_default().to_string_lossy();
    let given = plan.user.as_ref().map_or(String::new(), |user| {
        let group = if is_number(user) { user.clone() } else { format!("$(id -g {user})") };
        format!(" -o {user} -g {group}")
    });
    let (from, to) = (quoted_path(&directory.join(first)), quoted_path(&home));
    vec![
        format!("  Not kept         {all}: each release works on a copy of its own, and what it writes there is gone"),
        "                   with the next. What is in the home of the service stays. To move it there:".to_owned(),
        format!("                   install -m 600{given} {from} {to}/"),
        format!("                   and open os.path.expanduser({:?}) in the service", format!("~/{file}")),
    ]
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}
