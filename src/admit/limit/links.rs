//! A worker's links to the stores that limits are counted in.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::link::Link;
use super::store::Store;

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
}
