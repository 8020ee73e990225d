//! Python services that the gateway runs itself: from `[app.NAME]` to processes that serve, release after release.

mod account;
mod environ;
mod environment;
mod failure;
mod place;
mod process;
mod progress;
mod records;
pub mod shim;

use std::path::Path;
use std::sync::Arc;

use crate::config::problem::Problem;
use crate::config::settings::AppSettings;
use account::Account;
use place::Place;

/// One `[app.NAME]` of a snapshot. It is compiled only: what runs is with the task that follows it.
#[derive(Debug)]
pub struct App {
    pub name: Arc<str>,
    pub settings: AppSettings,
    account: Account,
    place: Place,
}

impl App {
    /// Compiles `settings`; nothing is started, and nothing is written. `state`: where the gateway keeps what outlives it.
    pub fn build(name: &str, settings: &AppSettings, state: &Path, problems: &mut Vec<Problem>) -> Option<App> {
        let account = Account::of(name, settings, problems)?;
        let place = Place::new(state, name);
        Some(App { name: Arc::from(name), settings: settings.clone(), account, place })
    }
}
