//! How many bodies a worker codes at the same time, and what came of it.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::Coding;
use crate::observe::metrics::{CodedWith, Metrics, WorkerId};

/// At the same time on one worker. Each holds up to 2.5 MB (br; zstd 1.5, gzip 0.2) until the last of its body is coded.
const MOST: usize = 32;

/// The encoders of one worker.
pub struct Encoders {
    open: Cell<usize>,
    worker: WorkerId,
    metrics: Arc<Metrics>,
}

impl Encoders {
    pub fn new(worker: WorkerId, metrics: Arc<Metrics>) -> Rc<Encoders> {
        Rc::new(Encoders { open: Cell::new(0), worker, metrics })
    }

    /// Leave to code one more body; `None` when there are enough: then it goes as it is.
    pub fn open(self: &Rc<Self>, coding: Coding) -> Option<Open> {
        let open = self.open.get();
        if open >= MOST {
            self.metrics.compression.refused(self.worker);
            return None;
        }
        self.open.set(open.saturating_add(1));
        Some(Open { encoders: Rc::clone(self), coding, place: true, input: 0, output: 0 })
    }

    /// For a body that is coded before anything else is done: it takes no place, since it holds none.
    pub fn at_once(self: &Rc<Self>, coding: Coding) -> Open {
        Open { encoders: Rc::clone(self), coding, place: false, input: 0, output: 0 }
    }
}

/// One body being coded.
pub struct Open {
    encoders: Rc<Encoders>,
    coding: Coding,
    /// Whether it is one of those that are open at the same time.
    place: bool,
    input: u64,
    output: u64,
}

impl Open {
    pub fn went_in(&mut self, bytes: usize) {
        self.input = self.input.saturating_add(bytes as u64);
    }

    pub fn came_out(&mut self, bytes: usize) {
        self.output = self.output.saturating_add(bytes as u64);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Encoders { open, worker, metrics } = &*self.encoders;
        if self.place {
            open.set(open.get().saturating_sub(1));
        }
        let with = match self.coding {
            Coding::Zstd => CodedWith::Zstd,
            Coding::Brotli => CodedWith::Brotli,
            Coding::Gzip => CodedWith::Gzip,
        };
        metrics.compression.coded(*worker, with, self.input, self.output);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_coded_at_once_takes_no_place() {
        let encoders = Encoders::new(WorkerId(0), Metrics::new(1));
        let mut open: Vec<Open> = (0..MOST).map(|_| encoders.open(Coding::Zstd).unwrap()).collect();
        assert!(encoders.open(Coding::Gzip).is_none());
        drop(encoders.at_once(Coding::Gzip));
        assert!(encoders.open(Coding::Gzip).is_none(), "nor gives one back");
        open.pop();
        assert!(encoders.open(Coding::Gzip).is_some());
    }
}
