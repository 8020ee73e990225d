//! A worker's links to the stores that limits are counted in.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::link::Link;
use super::store::Store;

/// How long a worker that ends goes on giving back.
const FAREWELL: Duration = Duration::from_millis(250);

#[derive(Default)]
pub struct Stores {
    links: RefCell<Vec<Rc<Link>>>,
}

impl Stores {
    /// The worker's link to the store; made, and its task started, where there is none yet.
    pub fn link(&self, store: &Arc<Store>) -> Rc<Link> {
        let mut links = self.links.borrow_mut();
        if let Some(link) = links.iter().find(|link| link.leads_to(store)) {
            return Rc::clone(link);
        }
        let link = Link::start(store, links.iter());
        // Stores that no snapshot has any more take their tasks with them.
        links.retain(|link| link.is_wanted());
        links.push(Rc::clone(&link));
        link
    }

    /// The worker ends: gives back all that its requests hold, as far as there is time for it.
    pub async fn leave(&self) {
        let links = self.links.borrow().clone();
        links.iter().for_each(|link| link.give_all_back());
        let all = async {
            for link in &links {
                link.all_returned().await;
            }
        };
        // What is left is free again when its lease is over.
        let _ = timeout(FAREWELL, all).await;
    }
}
