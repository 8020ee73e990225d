//! Whom an app's processes run as.

use std::path::Path;

use nix::unistd::{Gid, Uid, User, getgrouplist};

use super::shim::Ids;
use crate::config::problem::Problem;
use crate::config::settings::{AppSettings, At};

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// `None`: the gateway's own, which cannot be changed or need not be.
    pub(super) ids: Option<Ids>,
}

impl Account {
    /// The user of `[app.NAME]`. Whoever is root must say who the app is; whoever is not can only be themselves.
    pub(super) fn of(name: &str, settings: &AppSettings, problems: &mut Vec<Problem>) -> Option<Account> {
        let own = Uid::effective();
        let Some(user) = &settings.user else {
            if own.is_root() {
                let message =
                    format!("`user` of app `{name}` is missing: the gateway runs as root, and so would the app");
                let help = "add user = \"NAME\" with a user that owns nothing else";
                problems.push(Problem::error(&settings.span, message).help(help));
                return None;
            }
            problems.push(shared(name, &settings.span));
            return Some(Account { ids: None });
        };
        let found = match find(&user.value) {
            Ok(Some(found)) => found,
            Ok(None) => {
                let message = format!("there is no user {}", shown(user));
                problems.push(Problem::error(&user.span, message).help("make it: useradd --system NAME"));
                return None;
            }
            Err(error) => {
                problems.push(Problem::error(&user.span, format!("{} cannot be looked up: {error}", shown(user))));
                return None;
            }
        };
        if found.uid == own.as_raw() {
            problems.push(shared(name, &user.span));
            return Some(Account { ids: None });
        }
        if !own.is_root() {
            let message = format!("only a gateway that runs as root can run an app as {}", shown(user));
            problems.push(Problem::error(&user.span, message).help("run the gateway as root, or leave `user` out"));
            return None;
        }
        Some(Account { ids: Some(found) })
    }

    /// Makes what the gateway has put at `path` this user's own, without following links.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn own(&self, path: &Path) -> std::io::Result<()> {
        match &self.ids {
            Some(ids) => std::os::unix::fs::lchown(path, Some(ids.uid), Some(ids.gid)),
            None => Ok(()),
        }
    }
}

fn shown(user: &At<String>) -> String {
    if user.span.is_secret() { "this user".to_owned() } else { format!("`{}`", user.value) }
}

fn shared(name: &str, span: &crate::config::source::Span) -> Problem {
    let message =
        format!("app `{name}` runs as the gateway's own user: whoever breaks into it can read the gateway's keys");
    Problem::warning(span, message).help("run the gateway as root and give the app a `user` of its own")
}

/// By name, or by number for users that have none, as containers have them.
fn find(user: &str) -> nix::Result<Option<Ids>> {
    if let Some(found) = User::from_name(user)? {
        return of_user(&found).map(Some);
    }
    let Ok(number) = user.parse::<u32>() else { return Ok(None) };
    match User::from_uid(Uid::from_raw(number))? {
        Some(found) => of_user(&found).map(Some),
        None => Ok(Some(Ids { uid: number, gid: number, groups: vec![number] })),
    }
}

fn of_user(user: &User) -> nix::Result<Ids> {
    let name = std::ffi::CString::new(user.name.as_str()).map_err(|_| nix::Error::EINVAL)?;
    let groups = getgrouplist(&name, user.gid)?.into_iter().map(Gid::as_raw).collect();
    Ok(Ids { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups })
}
