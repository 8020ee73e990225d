//! What the connections and requests of one data-plane thread share, without locks: the newest snapshot, the kept
//! connections to servers, the drain.

pub mod drain;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use self::drain::Drain;
use crate::admit::PerWorker;
use crate::coding::encoders::Encoders;
use crate::files::Readers;
use crate::gateway::Gateway;
use crate::observe::metrics::{Metrics, WorkerId};
use crate::server::turns::Turns;
use crate::upstream::pool::Pool;

/// What every connection of a worker shares. Lives on its thread.
pub struct Worker {
    pub id: WorkerId,
    pub metrics: Arc<Metrics>,
    pub drain: Drain,
    /// Kept connections to servers.
    pub pool: Rc<Pool>,
    /// What admission remembers.
    pub admission: PerWorker,
    /// What of it may wait for the disk.
    pub readers: Readers,
    /// What codes its answers.
    pub encoders: Rc<Encoders>,
    /// Of the handshakes with its clients.
    pub handshakes: Turns,
    snapshot: RefCell<Snapshot>,
}

/// The newest snapshot seen by this worker; handing it to a request costs no atomic operation.
struct Snapshot {
    newest: Cache<Arc<ArcSwap<Gateway>>, Arc<Gateway>>,
    #[expect(clippy::redundant_allocation, reason = "an Rc is cloned for each request, an Arc would be shared")]
    seen: Rc<Arc<Gateway>>,
}

impl Worker {
    pub fn new(id: WorkerId, newest: Arc<ArcSwap<Gateway>>, metrics: Arc<Metrics>) -> Worker {
        let seen = Rc::new(newest.load_full());
        let encoders = Encoders::new(id, Arc::clone(&metrics));
        Worker {
            id,
            metrics,
            drain: Drain::default(),
            pool: Rc::default(),
            admission: PerWorker::default(),
            readers: Readers::default(),
            encoders,
            handshakes: Turns::default(),
            snapshot: RefCell::new(Snapshot { newest: Cache::new(newest), seen }),
        }
    }

    /// The configuration of this moment, to be kept to the end of what it is taken for.
    pub fn gateway(&self) -> Rc<Arc<Gateway>> {
        let Snapshot { newest, seen } = &mut *self.snapshot.borrow_mut();
        let newest = newest.load();
        if !Arc::ptr_eq(newest, seen) {
            // While the one before is still there, so that what is known of its stores is taken over.
            newest.limits.prepare(&self.admission.stores);
            *seen = Rc::new(Arc::clone(newest));
        }
        Rc::clone(seen)
    }
}
