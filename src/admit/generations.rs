//! A cache whose entries age in two steps: when the young ones are many they become the old ones, and what was old is
//! dropped. What is used may be made young again. It holds no more than twice its bounds, and no step takes long.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::mem;

/// What one generation may hold.
#[derive(Clone, Copy)]
pub struct Bounds {
    pub entries: usize,
    pub bytes: usize,
}

/// See the module.
pub struct Generations<K, V, S = RandomState> {
    bounds: Bounds,
    young: HashMap<K, Sized<V>, S>,
    old: HashMap<K, Sized<V>, S>,
    /// Of the young ones.
    bytes: usize,
}

struct Sized<V> {
    value: V,
    size: usize,
}

impl<K: Eq + Hash, V, S: BuildHasher + Default> Generations<K, V, S> {
    pub fn new(bounds: Bounds) -> Generations<K, V, S> {
        Generations { bounds, young: HashMap::default(), old: HashMap::default(), bytes: 0 }
    }

    /// Leaves it as old as it is.
    pub fn peek(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key)).map(|entry| &entry.value)
    }

    /// What `with` makes of the value, which is young from then on. One of which it makes nothing leaves.
    pub fn take_up<T>(&mut self, key: K, with: impl FnOnce(&V) -> Option<T>) -> Option<T> {
        if let Some(entry) = self.young.get(&key) {
            let made = with(&entry.value);
            if made.is_none() {
                self.remove(&key);
            }
            return made;
        }
        let entry = self.old.remove(&key)?;
        let made = with(&entry.value)?;
        self.put(key, entry.value, entry.size);
        Some(made)
    }

    /// `size`: what it takes in bytes, about.
    pub fn put(&mut self, key: K, value: V, size: usize) {
        self.remove(&key);
        if self.young.len() >= self.bounds.entries || self.bytes.saturating_add(size) > self.bounds.bytes {
            self.old = mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes = self.bytes.saturating_add(size);
        self.young.insert(key, Sized { value, size });
    }

    pub fn remove(&mut self, key: &K) {
        if let Some(before) = self.young.remove(key) {
            self.bytes = self.bytes.saturating_sub(before.size);
        }
        self.old.remove(key);
    }

    /// How many there are.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generations(entries: usize, bytes: usize) -> Generations<u32, &'static str> {
        Generations::new(Bounds { entries, bytes })
    }

    #[test]
    fn what_is_taken_up_stays_and_the_rest_leaves() {
        let mut cache = generations(10, 1000);
        cache.put(0, "used", 1);
        cache.put(1, "peeked at", 1);
        for key in 2..100 {
            cache.put(key, "other", 1);
            assert_eq!(cache.take_up(0, |value| Some(*value)), Some("used"), "{key}");
            cache.peek(&1);
            assert!(cache.count() <= 20);
        }
        assert_eq!(cache.peek(&1), None);
        assert_eq!(cache.take_up(0, |_| None::<()>), None);
        assert_eq!(cache.peek(&0), None, "it was worth nothing");
    }

    /// What replaces an entry counts instead of it, not beside it.
    #[test]
    fn an_entry_counts_once() {
        let mut cache = generations(10, 100);
        cache.put(0, "first", 40);
        for _ in 0..50 {
            cache.put(1, "again", 40);
        }
        cache.remove(&1);
        cache.put(2, "other", 60);
        assert_eq!((cache.young.len(), cache.old.len(), cache.bytes), (2, 0, 100));
        cache.put(3, "one more", 1);
        assert_eq!((cache.young.len(), cache.old.len(), cache.bytes), (1, 2, 1));
    }
}
