//! Storage of the pool: slots that are used again, and chains through them, so that every step of a checkout is O(1) and
//! allocates nothing once the pool has grown.

use std::ops::{Index, IndexMut};

/// Names a place in a [`Slab`]; valid until that place is removed.
pub(super) type Slot = u32;

const NONE: Slot = Slot::MAX;

/// Places for `T`, freed ones used again.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<Slot>,
}

impl<T> Slab<T> {
    pub fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    pub fn insert(&mut self, value: T) -> Slot {
        if let Some(slot) = self.free.pop() {
            self.places[slot as usize] = Some(value);
            return slot;
        }
        self.places.push(Some(value));
        (self.places.len() - 1) as Slot
    }

    pub fn remove(&mut self, slot: Slot) -> Option<T> {
        let value = self.places.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        Some(value)
    }

    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Slot, &T)> {
        self.places.iter().enumerate().filter_map(|(i, place)| Some((i as Slot, place.as_ref()?)))
    }
}

impl<T> Index<Slot> for Slab<T> {
    type Output = T;

    fn index(&self, slot: Slot) -> &T {
        self.places[slot as usize].as_ref().expect("the pool keeps no slot beyond its removal")
    }
}

impl<T> IndexMut<Slot> for Slab<T> {
    fn index_mut(&mut self, slot: Slot) -> &mut T {
        self.places[slot as usize].as_mut().expect("the pool keeps no slot beyond its removal")
    }
}

/// A value's place in one chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    prev: Slot,
    next: Slot,
}

impl Default for Link {
    fn default() -> Self {
        Self { prev: NONE, next: NONE }
    }
}

/// Which of a value's links a chain runs through.
pub(super) type Via<T> = fn(&mut T) -> &mut Link;

/// A doubly linked list through the values of a slab.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    front: Slot,
    back: Slot,
    len: usize,
}

impl Chain {
    pub fn new() -> Self {
        Self { front: NONE, back: NONE, len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Longest in the chain.
    pub fn front(&self) -> Option<Slot> {
        (self.front != NONE).then_some(self.front)
    }

    /// Newest in the chain.
    pub fn back(&self) -> Option<Slot> {
        (self.back != NONE).then_some(self.back)
    }

    pub fn push_back<T>(&mut self, slab: &mut Slab<T>, via: Via<T>, slot: Slot) {
        *via(&mut slab[slot]) = Link { prev: self.back, next: NONE };
        match self.back() {
            Some(back) => via(&mut slab[back]).next = slot,
            None => self.front = slot,
        }
        self.back = slot;
        self.len += 1;
    }

    /// The value must be in this chain.
    pub fn unlink<T>(&mut self, slab: &mut Slab<T>, via: Via<T>, slot: Slot) {
        let Link { prev, next } = std::mem::take(via(&mut slab[slot]));
        if prev == NONE {
            self.front = next;
        } else {
            via(&mut slab[prev]).next = next;
        }
        if next == NONE {
            self.back = prev;
        } else {
            via(&mut slab[next]).prev = prev;
        }
        self.len -= 1;
    }

    /// The one behind `slot`, towards the newest.
    pub fn after<T>(slab: &Slab<T>, link: fn(&T) -> &Link, slot: Slot) -> Option<Slot> {
        let next = link(&slab[slot]).next;
        (next != NONE).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Item(u32, Link);

    fn via(item: &mut Item) -> &mut Link {
        &mut item.1
    }

    proptest! {
        #[test]
        fn a_chain_is_a_list(steps in proptest::collection::vec((0u8..3, 0usize..8), 0..60)) {
            let (mut slab, mut chain, mut model) = (Slab::new(), Chain::new(), Vec::new());
            for (n, (step, at)) in steps.into_iter().enumerate() {
                if step > 0 {
                    let slot = slab.insert(Item(n as u32, Link::default()));
                    chain.push_back(&mut slab, via, slot);
                    model.push((n as u32, slot));
                } else if !model.is_empty() {
                    let (_, slot) = model.remove(at % model.len());
                    chain.unlink(&mut slab, via, slot);
                    prop_assert!(slab.remove(slot).is_some());
                }
                let mut seen = Vec::new();
                let mut next = chain.front();
                while let Some(slot) = next {
                    seen.push((slab[slot].0, slot));
                    next = Chain::after(&slab, |item| &item.1, slot);
                }
                prop_assert_eq!(&seen, &model);
                prop_assert_eq!(chain.len(), model.len());
                prop_assert_eq!(chain.back(), model.last().map(|(_, slot)| *slot));
                prop_assert_eq!(slab.len(), model.len());
            }
        }
    }
}
