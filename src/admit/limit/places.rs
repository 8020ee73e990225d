//! The places that one worker holds in a store, and those that it has to give back.
//!
//! Both are told to the store in batches, each of one key. What was given back stays here until the store has heard
//! of it, or until the place is nobody's any more by itself: so there is never more of it than was admitted within
//! one lease.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

use super::redis::LEASE;

/// How often places are renewed: twice before one would be lost.
pub const RENEWAL: Duration = Duration::from_secs(10);

/// So many places at most in a batch: the store does nothing else meanwhile.
const MOST: usize = 256;

/// Places of one key.
pub struct Batch {
    pub key: Rc<str>,
    pub places: Vec<Rc<str>>,
    /// When none of them is held any more, whatever the store was told.
    over: Instant,
}

#[derive(Default)]
pub struct Places {
    held: HashMap<Rc<str>, Held>,
    given_back: BTreeMap<Rc<str>, Vec<GivenBack>>,
    /// The key whose turn it was last, so that all have theirs.
    last: Option<Rc<str>>,
}

struct Held {
    key: Rc<str>,
    /// When it is to be renewed.
    due: Instant,
}

struct GivenBack {
    place: Rc<str>,
    over: Instant,
}

impl Places {
    pub fn hold(&mut self, key: &Rc<str>, place: &Rc<str>, now: Instant) {
        self.held.insert(Rc::clone(place), Held { key: Rc::clone(key), due: now + RENEWAL });
    }

    /// It was not had.
    pub fn forget(&mut self, place: &str) {
        self.held.remove(place);
    }

    /// To be told to the store; `false`: it was not held.
    pub fn give_back(&mut self, place: &Rc<str>, now: Instant) -> bool {
        let Some(Held { key, .. }) = self.held.remove(place) else { return false };
        self.queue(&key, Rc::clone(place), now + LEASE);
        true
    }

    /// Nothing is held any more.
    pub fn give_all_back(&mut self, now: Instant) {
        for (place, Held { key, .. }) in std::mem::take(&mut self.held) {
            self.queue(&key, place, now + LEASE);
        }
    }

    /// The store may not have heard of these.
    pub fn give_back_again(&mut self, batch: Batch) {
        for place in batch.places {
            self.queue(&batch.key, place, batch.over);
        }
    }

    fn queue(&mut self, key: &Rc<str>, place: Rc<str>, over: Instant) {
        self.given_back.entry(Rc::clone(key)).or_default().push(GivenBack { place, over });
    }

    /// Whether the store has to be told of some that were given back.
    pub fn owes(&self) -> bool {
        !self.given_back.is_empty()
    }

    /// What is to be given back of one key.
    pub fn to_give_back_of(&mut self, key: &str, now: Instant) -> Option<Batch> {
        let (key, mut all) = self.given_back.remove_entry(key)?;
        if all.len() > MOST {
            self.given_back.insert(Rc::clone(&key), all.split_off(MOST));
        }
        all.retain(|given_back| given_back.over > now);
        let over = all.iter().map(|given_back| given_back.over).max()?;
        Some(Batch { key, places: all.into_iter().map(|given_back| given_back.place).collect(), over })
    }

    /// What is to be given back, in at most so many batches; the rest stays. Keys take turns.
    pub fn to_give_back(&mut self, most: usize, now: Instant) -> Vec<Batch> {
        let mut batches = Vec::new();
        while batches.len() < most {
            let behind = self.last.take().map_or(Bound::Unbounded, Bound::Excluded);
            let next =
                self.given_back.range((behind, Bound::Unbounded)).next().or_else(|| self.given_back.iter().next());
            let Some(key) = next.map(|(key, _)| Rc::clone(key)) else { break };
            batches.extend(self.to_give_back_of(&key, now));
            self.last = Some(key);
        }
        batches
    }

    /// Forgets what was given back and is nobody's any more by itself.
    pub fn forget_what_is_over(&mut self, now: Instant) {
        self.given_back.retain(|_, all| {
            all.retain(|given_back| given_back.over > now);
            !all.is_empty()
        });
    }

    /// The store may have lost them all.
    pub fn all_are_due(&mut self, now: Instant) {
        self.held.values_mut().for_each(|held| held.due = now);
    }

    /// What is to be renewed; due again later.
    pub fn to_renew(&mut self, now: Instant) -> Vec<Batch> {
        let mut due: BTreeMap<&Rc<str>, Vec<Rc<str>>> = BTreeMap::new();
        for (place, held) in self.held.iter_mut().filter(|(_, held)| held.due <= now) {
            held.due = now + RENEWAL;
            due.entry(&held.key).or_default().push(Rc::clone(place));
        }
        let batch = |key: &Rc<str>, places: &[Rc<str>]| Batch {
            key: Rc::clone(key),
            places: places.to_vec(),
            over: now + LEASE,
        };
        due.iter().flat_map(|(key, places)| places.chunks(MOST).map(|places| batch(key, places))).collect()
    }

    /// Those of a batch that are still held.
    pub fn keep_held(&self, batch: &mut Batch) {
        batch.places.retain(|place| self.held.contains_key(place));
    }

    /// These were renewed, after some of them may have been given back: those are held again, and nobody's.
    pub fn were_renewed(&mut self, mut batch: Batch, now: Instant) {
        batch.places.retain(|place| !self.held.contains_key(place));
        batch.over = now + LEASE;
        self.give_back_again(batch);
    }
}

/// A name that no other place has, in this gateway or another.
pub fn place() -> Rc<str> {
    static GATEWAY: LazyLock<u64> = LazyLock::new(|| fastrand::u64(..));
    thread_local! {
        static COUNT: Cell<u64> = Cell::new(fastrand::u64(..));
    }
    let count = COUNT.get().wrapping_add(1);
    COUNT.set(count);
    Rc::from(format!("{:x}.{count:x}", *GATEWAY))
}

const _: () = assert!(RENEWAL.as_secs() * 2 < LEASE.as_secs());

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Rc<str> {
        Rc::from(text)
    }

    /// Holds `count` places of a key.
    fn hold(places: &mut Places, key: &str, count: usize, now: Instant) -> Vec<Rc<str>> {
        let names: Vec<Rc<str>> = (0..count).map(|number| text(&format!("{key}{number}"))).collect();
        names.iter().for_each(|name| places.hold(&text(key), name, now));
        names
    }

    fn told(batches: &[Batch]) -> Vec<(&str, usize)> {
        batches.iter().map(|batch| (&*batch.key, batch.places.len())).collect()
    }

    #[test]
    fn what_is_given_back_is_told_by_key_and_in_pieces() {
        let (mut places, now) = (Places::default(), Instant::now());
        for place in [hold(&mut places, "a", 300, now), hold(&mut places, "b", 2, now)].concat() {
            places.give_back(&place, now);
            places.give_back(&place, now);
        }
        hold(&mut places, "c", 1, now);
        assert_eq!(told(&places.to_give_back(1, now)), [("a", 256)]);
        assert_eq!(told(&places.to_give_back(9, now)), [("b", 2), ("a", 44)], "keys take turns");
        assert!(!places.owes() && places.to_give_back(9, now).is_empty());
        places.give_all_back(now);
        assert_eq!(told(&places.to_give_back(9, now)), [("c", 1)]);
    }

    #[test]
    fn no_key_waits_behind_others_for_ever_and_one_that_is_asked_for_goes_first() {
        let (mut places, now) = (Places::default(), Instant::now());
        for key in ["a", "b", "c", "d"] {
            let held = hold(&mut places, key, 1, now).remove(0);
            places.give_back(&held, now);
        }
        assert_eq!(told(&places.to_give_back_of("d", now).into_iter().collect::<Vec<_>>()), [("d", 1)]);
        assert!(places.to_give_back_of("d", now).is_none());
        assert_eq!(told(&places.to_give_back(1, now)), [("a", 1)]);
        let held = hold(&mut places, "a", 1, now).remove(0);
        places.give_back(&held, now);
        assert_eq!(told(&places.to_give_back(2, now)), [("b", 1), ("c", 1)]);
        assert_eq!(told(&places.to_give_back(2, now)), [("a", 1)]);
    }

    #[test]
    fn what_the_store_did_not_hear_of_stays_until_its_lease_is_over() {
        let (mut places, now) = (Places::default(), Instant::now());
        let place = hold(&mut places, "a", 1, now).remove(0);
        places.give_back(&place, now);
        for second in [0, 10, 29] {
            let [batch]: [Batch; 1] =
                places.to_give_back(9, now + Duration::from_secs(second)).try_into().ok().expect("it is still there");
            assert!(!places.owes());
            places.give_back_again(batch);
        }
        places.forget_what_is_over(now + Duration::from_secs(29));
        assert!(places.owes());
        assert!(places.to_give_back(9, now + Duration::from_secs(30)).is_empty());
        assert!(!places.owes());
    }

    #[test]
    fn places_are_renewed_when_they_are_due() {
        let (mut places, now) = (Places::default(), Instant::now());
        hold(&mut places, "a", 300, now);
        let later = now + Duration::from_secs(5);
        hold(&mut places, "b", 1, later);
        assert!(places.to_renew(later).is_empty());
        assert_eq!(told(&places.to_renew(now + RENEWAL)), [("a", 256), ("a", 44)]);
        assert_eq!(told(&places.to_renew(later + RENEWAL)), [("b", 1)], "those are due again later");
        places.all_are_due(later + RENEWAL);
        assert_eq!(told(&places.to_renew(later + RENEWAL)), [("a", 256), ("a", 44), ("b", 1)]);
    }

    /// A renewal and a give-back of the same place are on their way at once: whichever is later, nobody holds it.
    #[test]
    fn what_is_given_back_while_it_is_renewed_is_given_back_again() {
        let (mut places, now) = (Places::default(), Instant::now());
        let names = hold(&mut places, "a", 3, now);
        let mut batch = places.to_renew(now + RENEWAL).remove(0);
        places.give_back(&names[0], now);
        places.keep_held(&mut batch);
        assert_eq!(batch.places.len(), 2);
        places.give_back(&names[1], now);
        assert_eq!(told(&places.to_give_back(9, now)), [("a", 2)]);
        places.were_renewed(batch, now);
        let again = places.to_give_back(9, now);
        assert_eq!((told(&again), &again[0].places[..]), (vec![("a", 1)], &names[1..2]));
    }
}
