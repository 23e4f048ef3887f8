//! A map that forgets what was not asked for longest, by weight.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// See the module. Holds at most `weight_max`, and always the last value put in.
#[derive(Debug)]
pub(super) struct Lru<K, V> {
    values: HashMap<K, Cached<V>>,
    /// By the moment of the last use.
    order: BTreeMap<u64, K>,
    clock: u64,
    weight: usize,
    weight_max: usize,
}

#[derive(Debug)]
struct Cached<V> {
    value: V,
    weight: usize,
    used: u64,
}

impl<K: Copy + Eq + Hash, V: Clone> Lru<K, V> {
    pub(super) fn new(weight_max: usize) -> Self {
        Self {
            values: HashMap::new(),
            order: BTreeMap::new(),
            clock: 0,
            weight: 0,
            weight_max,
        }
    }

    pub(super) fn get(&mut self, key: K) -> Option<V> {
        self.clock += 1;
        let cached = self.values.get_mut(&key)?;
        self.order.remove(&cached.used);
        self.order.insert(self.clock, key);
        cached.used = self.clock;
        Some(cached.value.clone())
    }

    /// Puts a value in; what has to go for it goes to `dropped`.
    pub(super) fn insert(&mut self, key: K, value: V, weight: usize, dropped: &mut Vec<V>) {
        dropped.extend(self.remove(key));
        self.clock += 1;
        self.weight += weight;
        self.order.insert(self.clock, key);
        let used = self.clock;
        let cached = Cached {
            value,
            weight,
            used,
        };
        self.values.insert(key, cached);
        while self.weight > self.weight_max && self.values.len() > 1 {
            let (_, oldest) = self.order.pop_first().expect("as many as values");
            dropped.extend(self.take(oldest));
        }
    }

    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        let used = self.values.get(&key)?.used;
        self.order.remove(&used);
        self.take(key)
    }

    fn take(&mut self, key: K) -> Option<V> {
        let cached = self.values.remove(&key)?;
        self.weight -= cached.weight;
        Some(cached.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_for_longest_goes_first() {
        let mut lru = Lru::new(3);
        let mut dropped = Vec::new();
        for key in 1..=3 {
            lru.insert(key, key * 10, 1, &mut dropped);
        }
        assert_eq!(lru.get(1), Some(10));
        lru.insert(4, 40, 1, &mut dropped);
        assert_eq!(dropped, [20]);
        lru.insert(5, 50, 3, &mut dropped);
        assert_eq!(dropped, [20, 30, 10, 40]);
        assert_eq!((lru.get(5), lru.values.len()), (Some(50), 1));
    }

    #[test]
    fn one_that_is_too_heavy_is_kept_alone_and_a_second_copy_replaces_the_first() {
        let mut lru = Lru::new(2);
        let mut dropped = Vec::new();
        lru.insert(1, "a", 9, &mut dropped);
        assert_eq!(lru.get(1), Some("a"));
        lru.insert(1, "b", 1, &mut dropped);
        assert_eq!((dropped, lru.weight), (vec!["a"], 1));
        assert_eq!(lru.remove(1), Some("b"));
        assert_eq!((lru.weight, lru.order.len(), lru.get(1)), (0, 0, None));
    }
}
