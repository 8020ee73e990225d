//! Python services that the gateway runs itself: from `[app.NAME]` to processes that serve, release after release.

mod account;
pub mod background;
mod call_off;
mod copy;
mod environ;
mod environment;
mod failure;
mod fleet;
mod kept;
mod launch;
mod manager;
mod output;
mod place;
mod process;
mod progress;
mod records;
mod remove;
pub mod report;
mod scale;
pub mod shim;
mod stage;
mod store;
mod sweep;
pub mod tally;
mod usage;
mod worker;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::config::problem::Problem;
use crate::config::settings::{AppSettings, Packages};
use crate::gateway::Gateway;
use account::Account;
use place::Place;

/// Makes the directory that everything of apps is beneath, if there are any: before others make it, and close it.
///
/// # Errors
/// The system refuses.
pub fn prepare_state(gateway: &Gateway) -> std::io::Result<()> {
    if gateway.apps.is_empty() { Ok(()) } else { place::passage(&gateway.settings.server.state_directory) }
}

/// The apps of a snapshot.
pub fn build(
    settings: &BTreeMap<String, AppSettings>,
    state: &Path,
    problems: &mut Vec<Problem>,
) -> BTreeMap<Arc<str>, Arc<App>> {
    let mut apps: BTreeMap<Arc<str>, Arc<App>> = BTreeMap::new();
    for (name, settings) in settings {
        let Some(app) = App::build(name, settings, state, problems) else { continue };
        if let Some(other) = apps.values().find(|other| app.account.is_shared_with(&other.account)) {
            let message =
                format!("apps `{}` and `{name}` run as the same user: each can read the other's secrets", other.name);
            let span = settings.user.as_ref().map_or(&settings.span, |user| &user.span);
            problems.push(Problem::warning(span, message).help("give each app a user of its own"));
        }
        apps.insert(Arc::clone(&app.name), Arc::new(app));
    }
    apps
}

/// One `[app.NAME]` of a snapshot. It is compiled only: what runs is with the task that follows it.
#[derive(Clone, Debug)]
pub struct App {
    pub name: Arc<str>,
    pub settings: AppSettings,
    account: Account,
    place: Place,
}

impl App {
    /// Compiles `settings`; nothing is started, and nothing is written. `state`: where the gateway keeps what outlives it.
    fn build(name: &str, settings: &AppSettings, state: &Path, problems: &mut Vec<Problem>) -> Option<App> {
        code_is_there(settings, problems);
        packages_are_there(settings, problems);
        let account = Account::of(name, settings, problems)?;
        let place = Place::new(state, name, &account);
        Some(App { name: Arc::from(name), settings: settings.clone(), account, place })
    }
}

/// Nor without what its environment is made of: see there for where that is looked for.
fn packages_are_there(settings: &AppSettings, problems: &mut Vec<Problem>) {
    let file = match &settings.packages {
        Packages::Found => return,
        Packages::File(file) | Packages::Interpreter(file) => file,
    };
    let within = settings.directory.value.join(&file.value.written);
    if !within.exists() && !file.value.beside.exists() {
        let shown = if file.span.is_secret() { String::new() } else { format!(" `{}`", file.value.written.display()) };
        let message = format!("there is no{shown}, neither in the app's directory nor beside the configuration");
        problems.push(Problem::warning(&file.span, message));
    }
}

/// Without its directory an app serves on from the release that it has.
fn code_is_there(settings: &AppSettings, problems: &mut Vec<Problem>) {
    let directory = &settings.directory;
    if !directory.value.is_dir() {
        let shown =
            if directory.span.is_secret() { String::new() } else { format!(" `{}`", directory.value.display()) };
        let message = format!("there is no directory{shown} that an app could be released from");
        problems.push(Problem::warning(&directory.span, message));
    }
}
