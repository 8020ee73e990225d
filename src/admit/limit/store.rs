//! Stores that several gateways count in, as a snapshot has them. [`super::link`] is what a worker has of each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::redis::{Address, Failure, Tls};
use crate::admit::auth::Building;
use crate::config::problem::Problem;
use crate::config::settings::{StoreSettings, WhenUnreachable};
use crate::observe::metrics::StoreMetrics;
use crate::upstream::tls;

/// One `[store.NAME]` of a snapshot.
pub struct Store {
    pub name: Arc<str>,
    settings: StoreSettings,
    address: Address,
    metrics: Arc<StoreMetrics>,
}

/// Every `[store.NAME]` by its name.
pub type AllStores = BTreeMap<Arc<str>, Arc<Store>>;

/// Compiles every store; contacts none. One whose settings are the same is the very one of before.
pub fn build(stores: &BTreeMap<String, StoreSettings>, before: &AllStores, building: &mut Building<'_>) -> AllStores {
    let built = stores.iter().filter_map(|(name, settings)| {
        let store = Store::build(name, settings, before.get(name.as_str()), building)?;
        Some((Arc::clone(&store.name), store))
    });
    built.collect()
}

impl Store {
    fn build(
        name: &str,
        settings: &StoreSettings,
        before: Option<&Arc<Store>>,
        building: &mut Building<'_>,
    ) -> Option<Arc<Store>> {
        let tls = if settings.url.tls { Some(read_tls(settings, building)?) } else { None };
        let store = Store {
            name: Arc::from(name),
            settings: settings.clone(),
            address: Address::new(settings.url.clone(), tls),
            metrics: building.metrics.store(name),
        };
        let same = |before: &&Arc<Store>| {
            store.is_where(before)
                && store.timeout() == before.timeout()
                && store.when_unreachable() == before.when_unreachable()
        };
        Some(before.filter(same).map_or_else(|| Arc::new(store), Arc::clone))
    }

    /// Whether both are one server, asked by the same user.
    pub fn is_where(&self, other: &Store) -> bool {
        self.settings.url == other.settings.url && self.address.ca() == other.address.ca()
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    pub fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    pub fn metrics(&self) -> &Arc<StoreMetrics> {
        &self.metrics
    }

    pub fn when_unreachable(&self) -> WhenUnreachable {
        self.settings.when_unreachable
    }

    /// The first worker has lost it.
    pub fn is_lost(&self, why: &Failure) {
        let until_then = match self.settings.when_unreachable {
            WhenUnreachable::Local => "each gateway counts for itself",
            WhenUnreachable::Allow => "requests are not counted",
            WhenUnreachable::Deny => "requests are refused",
        };
        tracing::warn!(
            store = &*self.name,
            address = self.address.shown(),
            detail = self.without_secrets(why.to_string()),
            "the store of limits is away; until it is back {until_then}"
        );
    }

    /// The last worker that had lost it has found it again.
    pub fn is_found(&self) {
        tracing::info!(store = &*self.name, "the store of limits is back");
    }

    /// Servers repeat the name of a user who may not do something.
    fn without_secrets(&self, text: String) -> String {
        let secrets = [&self.settings.url.user, &self.settings.url.password];
        secrets.into_iter().flatten().fold(text, |text, secret| text.replace(secret.expose(), "***"))
    }
}

fn read_tls(settings: &StoreSettings, building: &mut Building<'_>) -> Option<Tls> {
    let roots = tls::trusting(settings.ca.as_ref(), &settings.span, building.system_roots, building.problems);
    let (_, config) = roots?;
    let ca = match &settings.ca {
        None => None,
        Some(ca) => match crate::config::read_bounded(&ca.value, crate::gateway::pem::LARGEST) {
            Ok(text) => Some(text),
            Err(error) => {
                let message = format!("`{}` cannot be read: {error}", ca.value.display());
                building.problems.push(Problem::error(&ca.span, message));
                return None;
            }
        },
    };
    Some(Tls { config, ca })
}
