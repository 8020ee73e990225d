//! Counts by key, in memory that does not grow, without locks.
//!
//! A table is a fixed array of slots, each a key and a word that its user counts in: a bucket's time, or how many
//! there are. Keys are 64-bit hashes under a secret of this process, so nothing of what a client sends is kept, and
//! nobody outside can aim two keys at one slot. A key is looked for in a window of slots that begins where its hash
//! points, or in another one elsewhere. A slot whose word says that it is free (a full bucket, a count of none) may be given to another key; no
//! other slot ever changes hands. A key that finds no place shares one overflow word with all such keys.
//!
//! # Why this is right without a lock
//!
//! The top bit of a word, [`CHANGING`], is set while its slot is changing hands. Only whoever set it writes that slot
//! until it is cleared again. Beside that, a word is only ever replaced by compare-and-swap, and never takes a value
//! twice while its key may be another one: a claim writes a value that the word did not have before (times grow;
//! counts carry the number of the claim).
//!
//! *Counting on a key's own slot is exact.* The word is read first, then the key, then the word is swapped. If the swap
//! succeeds, the word had the same value throughout, so nobody was changing hands, so the key that was read in between
//! is the one that the new word counts for.
//!
//! *A key has at most one slot.* Whoever claims a slot marks it, writes the key, and only then looks for the key in the
//! rest of the window. Of two who claim slots for the same key at least one sees the other's (both write before they
//! read, in one total order), and whoever sees another gives its own slot up, uncounted, and starts again. Both may do
//! so; after a bounded number of attempts a request is counted in the overflow instead, so nobody waits for a thread
//! that the kernel suspended.
//!
//! *A search may stop at a word of zero.* Such a slot was never used, so every claim so far, for any key whose window
//! holds it, was made at it or before it. If one is made beyond it later, that is because somebody is changing it,
//! and then whoever stopped there fails to claim it or is seen by the other.

use std::hint::spin_loop;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

/// Set in a word while its slot changes hands.
const CHANGING: u64 = 1 << 63;

/// No key: the slot was never used, or is given up.
const NOBODY: u64 = 0;

/// How many slots a key may be in.
const WINDOW: usize = 128;

/// How often a request starts again when others change what it looks at.
const ATTEMPTS: usize = 64;

/// How a table's words count. The top bit of a word is never theirs.
pub trait Words {
    /// Whether a slot with this word may be given to another key. Zero is free.
    fn is_free(&self, word: u64) -> bool;

    /// Counts one more in a slot; `None` when there is no room.
    fn more(&self, word: u64) -> Option<u64>;

    /// What is the first count of a key whose slot had this free word: a value that the slot never had before.
    fn first(&self, free: u64) -> u64;

    /// Another free word, that the slot never had before.
    fn given_up(&self, free: u64) -> u64;
}

/// Where something was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(usize);

/// Where those are counted that have no slot.
const OVERFLOW: Place = Place(usize::MAX);

/// What came of counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// There was room; with the new word.
    Yes { place: Place, word: u64 },
    /// With the word as it is.
    No { word: u64 },
}

#[derive(Default)]
struct Slot {
    key: AtomicU64,
    word: AtomicU64,
}

/// A table of slots.
pub struct Table {
    slots: Box<[Slot]>,
    overflow: AtomicU64,
    overflowed: AtomicU64,
}

/// Where a search ended.
enum Found {
    At(usize),
    /// The key has no slot, but this one is free and had this word.
    Free(usize, u64),
    Nowhere,
}

impl Table {
    /// For `keys` keys: small tables hold just as many, larger ones have half as many slots more, so that chance keeps
    /// hardly any of the keys out.
    pub fn new(keys: NonZeroUsize) -> Table {
        let keys = keys.get();
        let slots = if keys <= WINDOW { keys } else { keys.saturating_add(keys / 2) };
        Table {
            slots: std::iter::repeat_with(Slot::default).take(slots).collect(),
            overflow: AtomicU64::new(0),
            overflowed: AtomicU64::new(0),
        }
    }

    /// Counts one more under the key with this hash.
    pub fn count(&self, key: u64, words: &impl Words) -> Counted {
        let key = key.max(1);
        for _ in 0..ATTEMPTS {
            let counted = match self.find(key, words) {
                Found::At(place) => self.count_at(place, key, words),
                Found::Free(place, word) => self.claim(place, word, key, words),
                Found::Nowhere => break,
            };
            if let Some(counted) = counted {
                return counted;
            }
            spin_loop();
        }
        self.overflowed.fetch_add(1, Ordering::Relaxed);
        self.count_overflow(words)
    }

    /// The word that one more under this key would be counted in, without counting it; zero where a slot would be new.
    pub fn peek(&self, key: u64, words: &impl Words) -> u64 {
        match self.find(key.max(1), words) {
            Found::At(number) => self.slots.get(number).map_or(0, |slot| slot.word.load(Ordering::SeqCst) & !CHANGING),
            Found::Free(..) => 0,
            Found::Nowhere => self.overflow.load(Ordering::SeqCst),
        }
    }

    /// One less; for tables whose words count what is held. Only for a place where one more was counted.
    pub fn give_back(&self, place: Place) {
        // A slot that counts something never changes hands, so this is the very slot that was counted in.
        let word = self.slots.get(place.0).map_or(&self.overflow, |slot| &slot.word);
        word.fetch_sub(1, Ordering::SeqCst);
    }

    /// How many keys have a slot that is not free. Reads the whole table.
    pub fn in_use(&self, words: &impl Words) -> usize {
        self.slots.iter().filter(|slot| !words.is_free(slot.word.load(Ordering::Relaxed) & !CHANGING)).count()
    }

    /// How often something was counted in the overflow.
    pub fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// The slots that a key may be in, with their numbers: two stretches, so that a crowd around one of them keeps hardly
    /// any key out. Of a small table all slots.
    fn window(&self, key: u64) -> impl Iterator<Item = (usize, &Slot)> {
        let length = self.slots.len();
        let stretch = if length <= WINDOW { length } else { WINDOW / 2 };
        let others = if length <= WINDOW { 0 } else { stretch };
        let from = move |key: u64| {
            // The upper half of the product is below the length and spread as the key is.
            let first = usize::try_from((u128::from(key) * length as u128) >> 64).unwrap_or(0);
            (first..length).chain(0..first)
        };
        let numbers = from(key).take(stretch).chain(from(key.rotate_left(32)).take(others));
        numbers.filter_map(|number| Some((number, self.slots.get(number)?)))
    }

    fn find(&self, key: u64, words: &impl Words) -> Found {
        let mut free = Found::Nowhere;
        for (number, slot) in self.window(key) {
            let word = slot.word.load(Ordering::SeqCst);
            let holder = slot.key.load(Ordering::SeqCst);
            if word & CHANGING != 0 {
                continue;
            }
            if holder == key && word != 0 {
                return Found::At(number);
            }
            if matches!(free, Found::Nowhere) && words.is_free(word) {
                free = Found::Free(number, word);
            }
            if word == 0 {
                break;
            }
        }
        free
    }

    /// `None`: the slot has changed hands.
    fn count_at(&self, number: usize, key: u64, words: &impl Words) -> Option<Counted> {
        let slot = self.slots.get(number)?;
        loop {
            let word = slot.word.load(Ordering::SeqCst);
            if word & CHANGING != 0 || slot.key.load(Ordering::SeqCst) != key {
                return None;
            }
            let next = match (words.is_free(word), words.more(word)) {
                (true, _) => words.first(word),
                (false, Some(next)) => next,
                (false, None) => return Some(Counted::No { word }),
            };
            if slot.word.compare_exchange(word, next, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                return Some(Counted::Yes { place: Place(number), word: next });
            }
        }
    }

    /// `None`: somebody else was first, there or elsewhere.
    fn claim(&self, number: usize, word: u64, key: u64, words: &impl Words) -> Option<Counted> {
        let slot = self.slots.get(number)?;
        slot.word.compare_exchange(word, word | CHANGING, Ordering::SeqCst, Ordering::SeqCst).ok()?;
        slot.key.store(key, Ordering::SeqCst);
        if self.is_elsewhere(key, number) {
            slot.key.store(NOBODY, Ordering::SeqCst);
            slot.word.store(words.given_up(word), Ordering::SeqCst);
            return None;
        }
        let next = words.first(word);
        slot.word.store(next, Ordering::SeqCst);
        Some(Counted::Yes { place: Place(number), word: next })
    }

    /// Whether the key has, or is about to have, another slot of its window.
    fn is_elsewhere(&self, key: u64, but: usize) -> bool {
        for (number, slot) in self.window(key) {
            let word = slot.word.load(Ordering::SeqCst);
            if number != but && slot.key.load(Ordering::SeqCst) == key {
                return true;
            }
            if word == 0 {
                return false;
            }
        }
        false
    }

    fn count_overflow(&self, words: &impl Words) -> Counted {
        loop {
            let word = self.overflow.load(Ordering::SeqCst);
            let next = match (words.is_free(word), words.more(word)) {
                (true, _) => words.first(word),
                (false, Some(next)) => next,
                (false, None) => return Counted::No { word },
            };
            if self.overflow.compare_exchange(word, next, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                return Counted::Yes { place: OVERFLOW, word: next };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};
    use std::num::NonZeroU32;
    use std::sync::atomic::AtomicUsize;
    use std::sync::{Barrier, LazyLock};

    use super::*;
    use crate::admit::limit::concurrent::AtOnce;

    /// Words are times: each count moves a slot's by one, to at most ten ahead of now.
    struct Clock(u64);

    impl Words for Clock {
        fn is_free(&self, word: u64) -> bool {
            word <= self.0
        }

        fn more(&self, word: u64) -> Option<u64> {
            (word < self.0 + 10).then_some(word + 1)
        }

        fn first(&self, free: u64) -> u64 {
            free.max(self.0) + 1
        }

        fn given_up(&self, free: u64) -> u64 {
            free + 1
        }
    }

    fn table(keys: usize) -> Table {
        Table::new(NonZeroUsize::new(keys).unwrap())
    }

    fn hash(key: u64) -> u64 {
        static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        SECRET.hash_one(key)
    }

    fn admitted(table: &Table, key: u64, words: &impl Words) -> bool {
        matches!(table.count(hash(key), words), Counted::Yes { .. })
    }

    #[test]
    fn each_key_counts_by_itself() {
        let table = table(1000);
        for key in 0..1000_u64 {
            for _ in 0..10 {
                assert!(admitted(&table, key, &Clock(5)));
            }
            assert!(!admitted(&table, key, &Clock(5)));
        }
        assert_eq!((table.in_use(&Clock(5)), table.overflowed()), (1000, 0));
        assert_eq!(table.in_use(&Clock(15)), 0, "all are full again");
    }

    #[test]
    fn a_peek_counts_nothing() {
        let table = table(1);
        let peek = |key: u64| table.peek(hash(key), &Clock(5));
        assert_eq!(peek(1), 0);
        assert!(admitted(&table, 1, &Clock(5)));
        assert_eq!((peek(1), peek(1), peek(2)), (6, 6, 0));
        assert!(admitted(&table, 2, &Clock(5)));
        assert_eq!((peek(1), peek(2), peek(3)), (6, 6, 6), "the others share what is left");
        assert_eq!((table.overflowed(), table.peek(hash(3), &Clock(50))), (1, 0), "there is room again");
    }

    #[test]
    fn a_full_table_evicts_nobody_and_new_keys_share_what_is_left() {
        for keys in [1, 3, 128, 10_000] {
            let table = table(keys);
            let held: Vec<u64> = (0..)
                .take(20 * keys)
                .filter(|key| {
                    let before = table.overflowed();
                    admitted(&table, *key, &Clock(1));
                    table.overflowed() == before
                })
                .collect();
            assert!(held.len() >= keys && held.len() <= keys + keys / 2, "{} of {keys}", held.len());
            // Of those that share, ten were admitted together.
            assert!(!admitted(&table, u64::MAX, &Clock(1)));
            for key in &held {
                assert_eq!((0..20).filter(|_| admitted(&table, *key, &Clock(1))).count(), 9, "none was evicted");
            }
            // Once their buckets are full again, their places go to others.
            let before = table.overflowed();
            for key in 0..keys as u64 {
                assert!(admitted(&table, u64::MAX / 2 + key, &Clock(100)));
            }
            assert_eq!(table.overflowed(), before);
        }
    }

    #[test]
    fn what_is_given_back_can_be_had_again() {
        let (table, most) = (table(2), AtOnce(NonZeroU32::new(2).unwrap()));
        let place = |key: u64| match table.count(hash(key), &most) {
            Counted::Yes { place, .. } => Some(place),
            Counted::No { .. } => None,
        };
        let (one, two) = (place(1).unwrap(), place(1).unwrap());
        assert_eq!(place(1), None);
        table.give_back(one);
        let three = place(1).unwrap();
        // The second key has the second place; the others share the overflow.
        let (four, five) = (place(2).unwrap(), place(3).unwrap());
        assert_eq!((place(4).is_some(), place(5), table.overflowed()), (true, None, 3));
        for place in [two, three, four, five] {
            table.give_back(place);
        }
        assert_eq!(table.in_use(&most), 0);
        assert!(place(6).is_some() && place(7).is_some() && table.overflowed() == 3);
    }

    /// Another thread was suspended in the middle of a claim, in a slot that is not the first free one.
    #[test]
    fn a_key_that_is_being_given_a_slot_gets_no_second_one() {
        let table = table(4);
        let key = hash(7).max(1);
        let (number, other) = table.window(key).nth(1).unwrap();
        other.word.store(CHANGING, Ordering::SeqCst);
        other.key.store(key, Ordering::SeqCst);
        assert!(admitted(&table, 7, &Clock(1000)));
        assert_eq!((table.overflowed(), table.in_use(&Clock(1000))), (1, 0), "counted where nothing is doubled");
        other.word.store(Clock(1000).first(0), Ordering::SeqCst);
        let counted = table.count(hash(7), &Clock(1000));
        assert_eq!(counted, Counted::Yes { place: Place(number), word: 1002 }, "in the slot that the other claimed");
        assert_eq!(table.overflowed(), 1);
    }

    /// Many threads, few slots, keys that come and go: of each key no more ever pass than may.
    #[test]
    fn threads_together_let_through_exactly_what_one_would() {
        const THREADS: usize = 4;
        const ROUNDS: u64 = 3000;
        let table = table(8);
        let barrier = Barrier::new(THREADS);
        // Each round has another time and six keys of which some were there before; all ten of each key must pass.
        let passed: Vec<[AtomicUsize; 6]> = (0..ROUNDS).map(|_| Default::default()).collect();
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for (round, passed) in (0..ROUNDS).zip(&passed) {
                        barrier.wait();
                        for _ in 0..6 {
                            for (key, passed) in (0..).zip(passed) {
                                if admitted(&table, round / 2 + key, &Clock(1 + round * 20)) {
                                    passed.fetch_add(1, Ordering::Relaxed);
                                }
                            }
                        }
                    }
                });
            }
        });
        // Those that came while a thread was suspended in the middle of a claim were counted in the overflow.
        let excess: usize =
            passed.iter().flatten().map(|passed| passed.load(Ordering::Relaxed).saturating_sub(10)).sum();
        assert!(excess as u64 <= table.overflowed(), "{excess} too many, {} overflowed", table.overflowed());
        let exact = passed.iter().flatten().filter(|passed| passed.load(Ordering::Relaxed) == 10).count();
        assert!(exact * 100 >= passed.as_flattened().len() * 99, "{exact}");
    }

    /// Likewise for what is held: never more at once than may be, and nothing is lost.
    #[test]
    fn threads_together_hold_no_more_than_may_be() {
        let (table, most) = (table(4), AtOnce(NonZeroU32::new(2).unwrap()));
        let running: [AtomicUsize; 3] = Default::default();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let (table, running) = (&table, &running);
                scope.spawn(move || {
                    for turn in 0..30_000_u64 {
                        let key = (turn + thread) % 3;
                        let counted = table.count(hash(key), &most);
                        if let Counted::Yes { place: OVERFLOW, .. } = counted {
                            table.give_back(OVERFLOW);
                        } else if let Counted::Yes { place, .. } = counted {
                            let running = &running[usize::try_from(key).unwrap()];
                            assert!(running.fetch_add(1, Ordering::SeqCst) < 2);
                            running.fetch_sub(1, Ordering::SeqCst);
                            table.give_back(place);
                        }
                    }
                });
            }
        });
        assert_eq!((table.in_use(&most), AtOnce::running(table.overflow.load(Ordering::SeqCst))), (0, 0));
    }
}
