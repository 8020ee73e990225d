//! Whom an app's processes run as.

use std::os::unix::fs::MetadataExt;
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

    /// Whether both are one user other than the gateway's own, which draws a warning in any case.
    pub(super) fn is_shared_with(&self, other: &Account) -> bool {
        matches!((&self.ids, &other.ids), (Some(own), Some(other)) if own.uid == other.uid)
    }

    /// Whether this user gets through every directory down to `path`.
    ///
    /// # Errors
    /// The first that is closed to it, and what to do.
    pub(super) fn can_enter(&self, path: &Path) -> std::io::Result<()> {
        let Some(ids) = &self.ids else { return Ok(()) };
        let mut above: Vec<&Path> = path.ancestors().collect();
        above.reverse();
        for directory in above {
            let found = std::fs::metadata(directory)?;
            let needed = if found.uid() == ids.uid {
                0o100
            } else if ids.gid == found.gid() || ids.groups.contains(&found.gid()) {
                0o010
            } else {
                0o001
            };
            if found.mode() & needed == 0 {
                return Err(std::io::Error::new(
                    std::io::ErrorKind::PermissionDenied,
                    format!(
                        "the app's user (uid {}) cannot enter {}: chmod o+x it, or set state_directory of [server] to a \
                         directory that everybody can pass through",
                        ids.uid,
                        directory.display()
                    ),
                ));
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::App;
    use crate::config::problem::Severity;
    use crate::config::{Outside, load_text};

    /// What is said of an app with this line among its settings, and whether it could be compiled.
    fn said(user: &str) -> (bool, Vec<(Severity, String)>) {
        let text = format!("[app.shop]\ndirectory = \"/\"\nentry = \"app:app\"\n{user}\n");
        let loaded = load_text("app.toml", &text, Path::new("/"), &Outside::new(&|_| Some("hidden".into())));
        let (_, problems) = loaded.build(|settings, problems| {
            problems.clear();
            let app = App::build("shop", &settings.apps["shop"], Path::new("/none"), problems);
            if app.is_some() {
                problems.push(crate::config::problem::Problem::warning(&settings.apps["shop"].span, "compiled"));
            }
            Some(())
        });
        let mut told: Vec<_> = problems.into_iter().map(|problem| (problem.severity, problem.message)).collect();
        let compiled = told.pop_if(|(_, message)| message == "compiled").is_some();
        (compiled, told)
    }

    fn is_root() -> bool {
        nix::unistd::Uid::effective().is_root()
    }

    fn own_name() -> String {
        let own = nix::unistd::Uid::effective();
        nix::unistd::User::from_uid(own).unwrap().map_or(own.to_string(), |user| user.name)
    }

    const SHARED: &str =
        "app `shop` runs as the gateway's own user: whoever breaks into it can read the gateway's keys";

    #[test]
    fn root_says_who_an_app_is() {
        let (compiled, told) = said("");
        match is_root() {
            true => {
                let message = "`user` of app `shop` is missing: the gateway runs as root, and so would the app";
                assert_eq!((compiled, told), (false, vec![(Severity::Error, message.to_owned())]));
            }
            false => assert_eq!((compiled, told), (true, vec![(Severity::Warning, SHARED.to_owned())])),
        }
    }

    #[test]
    fn another_user_is_for_root_to_choose() {
        let (compiled, told) = said("user = \"nobody\"");
        match is_root() {
            true => assert_eq!((compiled, told), (true, vec![])),
            false => {
                let message = "only a gateway that runs as root can run an app as `nobody`";
                assert_eq!((compiled, told), (false, vec![(Severity::Error, message.to_owned())]));
            }
        }
    }

    #[test]
    fn sharing_a_user_draws_a_warning() {
        let expected = (true, vec![(Severity::Warning, SHARED.to_owned())]);
        assert_eq!(said(&format!("user = \"{}\"", own_name())), expected);
        assert_eq!(said(&format!("user = \"{}\"", nix::unistd::Uid::effective())), expected);
    }

    #[test]
    fn two_apps_of_one_user_draw_a_warning() {
        let app = |name| format!("[app.{name}]\ndirectory = \"/\"\nentry = \"app:app\"\nuser = \"nobody\"\n");
        let text = app("one") + &app("two");
        let loaded = load_text("app.toml", &text, Path::new("/"), &Outside::new(&|_| None));
        let (_, problems) = loaded.build(|settings, problems| {
            problems.clear();
            super::super::build(&settings.apps, Path::new("/none"), problems);
            Some(())
        });
        let told: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
        let shared = "apps `one` and `two` run as the same user: each can read the other's secrets";
        assert_eq!(told.contains(&shared), is_root(), "{told:?}");
    }

    #[test]
    fn a_user_that_is_not_there_is_an_error() {
        let (compiled, told) = said("user = \"no-such-user\"");
        assert_eq!((compiled, told), (false, vec![(Severity::Error, "there is no user `no-such-user`".to_owned())]));
    }
}
