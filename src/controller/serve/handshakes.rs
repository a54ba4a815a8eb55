//! TLS handshakes under way: bounded in number, and the oldest goes when there are too many. Whoever begins handshakes and leaves
//! them half done loses those first; an honest client needs its place for a round trip or two.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

pub struct Handshakes {
    max: usize,
    under_way: Mutex<UnderWay>,
}

#[derive(Default)]
struct UnderWay {
    begun: u64,
    /// In order of their beginning; one that is dropped ends its handshake.
    places: BTreeMap<u64, oneshot::Sender<()>>,
}

/// One handshake's place; given back when dropped.
pub struct Handshake {
    all: Arc<Handshakes>,
    number: u64,
    ended: oneshot::Receiver<()>,
}

impl Handshakes {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, under_way: Mutex::default() })
    }

    /// Always finds a place, at the oldest's cost if need be.
    pub fn begin(self: &Arc<Self>) -> Handshake {
        let (place, ended) = oneshot::channel();
        let mut under_way = self.lock();
        under_way.begun += 1;
        let number = under_way.begun;
        under_way.places.insert(number, place);
        if under_way.places.len() > self.max {
            under_way.places.pop_first();
        }
        Handshake { all: self.clone(), number, ended }
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        // Whole at each step, whoever panicked.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handshake {
    /// Returns when this one must make room.
    pub async fn must_end(&mut self) {
        // Nobody sends: the other end is dropped.
        let _ = (&mut self.ended).await;
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.all.lock().places.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_oldest_makes_room() {
        let handshakes = Handshakes::new(2);
        let mut first = handshakes.begin();
        let second = handshakes.begin();
        drop(second);
        let mut third = handshakes.begin();
        let mut ends = Box::pin(first.must_end());
        assert!((&mut ends).now_or_never().is_none());
        let _fourth = handshakes.begin();
        ends.await;
        drop(first);
        assert!(third.must_end().now_or_never().is_none());
        drop(third);
        assert_eq!(handshakes.lock().places.len(), 1);
    }
}
