//! A sorted set that knows ranks: insert, remove, rank in logarithmic time.
//!
//! A treap with the size of every subtree, in one vector without a pointer: 24 bytes around a key and no allocation per
//! key. Own code because the standard library's trees do not know ranks, and the ready ones keep blocks of a thousand
//! keys, which costs every small lane its block.

use std::cmp::Ordering;
use std::hash::{BuildHasher, RandomState};

const NONE: u32 = u32::MAX;

struct Node<K> {
    key: K,
    left: u32,
    right: u32,
    /// Keys in this subtree.
    size: u32,
    /// Higher ones are nearer to the root; random, so that the tree is balanced whatever comes in.
    weight: u32,
}

/// See the [module](self). Holds less than 2^32 keys.
pub(super) struct Ranked<K> {
    nodes: Vec<Node<K>>,
    unused: Vec<u32>,
    root: u32,
    random: u64,
}

impl<K> Default for Ranked<K> {
    fn default() -> Self {
        Ranked {
            nodes: Vec::new(),
            unused: Vec::new(),
            root: NONE,
            random: RandomState::new().hash_one(0) | 1,
        }
    }
}

impl<K: Ord + Copy> Ranked<K> {
    /// Keys in the set.
    pub(super) fn len(&self) -> usize {
        self.size(self.root) as usize
    }

    /// How many keys are smaller; `None` when the key is not in the set.
    pub(super) fn rank(&self, key: &K) -> Option<usize> {
        let (mut at, mut smaller) = (self.root, 0);
        while at != NONE {
            let node = &self.nodes[at as usize];
            match key.cmp(&node.key) {
                Ordering::Less => at = node.left,
                Ordering::Equal => return Some((smaller + self.size(node.left)) as usize),
                Ordering::Greater => {
                    smaller += self.size(node.left) + 1;
                    at = node.right;
                }
            }
        }
        None
    }

    /// Puts a key in; false when it was there.
    pub(super) fn insert(&mut self, key: K) -> bool {
        if self.rank(&key).is_some() {
            return false;
        }
        let node = Node {
            key,
            left: NONE,
            right: NONE,
            size: 1,
            weight: self.draw(),
        };
        let new = match self.unused.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        };
        let (smaller, larger) = self.split(self.root, &key);
        let left = self.join(smaller, new);
        self.root = self.join(left, larger);
        true
    }

    /// Takes a key out; false when it was not there.
    pub(super) fn remove(&mut self, key: &K) -> bool {
        if self.rank(key).is_none() {
            return false;
        }
        self.root = self.without(self.root, key);
        if self.root == NONE {
            // An empty lane gives back what a full one needed.
            self.nodes = Vec::new();
            self.unused = Vec::new();
        }
        true
    }

    fn size(&self, at: u32) -> u32 {
        self.nodes.get(at as usize).map_or(0, |node| node.size)
    }

    fn draw(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 32) as u32
    }

    fn count(&mut self, at: u32) {
        let node = &self.nodes[at as usize];
        self.nodes[at as usize].size = self.size(node.left) + self.size(node.right) + 1;
    }

    /// The subtrees of keys below `key` and of all others.
    fn split(&mut self, at: u32, key: &K) -> (u32, u32) {
        if at == NONE {
            return (NONE, NONE);
        }
        if self.nodes[at as usize].key < *key {
            let (low, high) = self.split(self.nodes[at as usize].right, key);
            self.nodes[at as usize].right = low;
            self.count(at);
            (at, high)
        } else {
            let (low, high) = self.split(self.nodes[at as usize].left, key);
            self.nodes[at as usize].left = high;
            self.count(at);
            (low, at)
        }
    }

    /// One subtree of two, whose keys do not overlap.
    fn join(&mut self, low: u32, high: u32) -> u32 {
        if low == NONE || high == NONE {
            return if low == NONE { high } else { low };
        }
        if self.nodes[low as usize].weight > self.nodes[high as usize].weight {
            self.nodes[low as usize].right = self.join(self.nodes[low as usize].right, high);
            self.count(low);
            low
        } else {
            self.nodes[high as usize].left = self.join(low, self.nodes[high as usize].left);
            self.count(high);
            high
        }
    }

    /// The subtree without a key that is in it.
    fn without(&mut self, at: u32, key: &K) -> u32 {
        let node = &self.nodes[at as usize];
        let (left, right) = (node.left, node.right);
        match key.cmp(&node.key) {
            Ordering::Equal => {
                self.unused.push(at);
                return self.join(left, right);
            }
            Ordering::Less => self.nodes[at as usize].left = self.without(left, key),
            Ordering::Greater => self.nodes[at as usize].right = self.without(right, key),
        }
        self.count(at);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranks_are_those_of_a_sorted_list(ops in proptest::collection::vec((any::<bool>(), 0u32..60), 1..300)) {
            let (mut ranked, mut list) = (Ranked::default(), Vec::<u32>::new());
            for (put, key) in ops {
                match (put, list.binary_search(&key)) {
                    (true, found) => {
                        prop_assert_eq!(ranked.insert(key), found.is_err());
                        if let Err(at) = found {
                            list.insert(at, key);
                        }
                    }
                    (false, found) => {
                        prop_assert_eq!(ranked.remove(&key), found.is_ok());
                        if let Ok(at) = found {
                            list.remove(at);
                        }
                    }
                }
                prop_assert_eq!(ranked.len(), list.len());
                for key in 0..60 {
                    prop_assert_eq!(ranked.rank(&key), list.binary_search(&key).ok());
                }
            }
        }
    }

    #[test]
    fn sorted_arrivals_do_not_make_it_deep() {
        let mut ranked = Ranked::default();
        for key in 0..100_000u32 {
            ranked.insert(key);
        }
        fn depth(ranked: &Ranked<u32>, at: u32) -> u32 {
            match ranked.nodes.get(at as usize) {
                Some(node) => 1 + depth(ranked, node.left).max(depth(ranked, node.right)),
                None => 0,
            }
        }
        assert!(depth(&ranked, ranked.root) < 80, "{}", depth(&ranked, ranked.root));
        assert_eq!(ranked.rank(&77_777), Some(77_777));
    }
}
