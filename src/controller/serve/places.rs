//! How many connections may be open, in all and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The connections that are open.
pub struct Places {
    max: usize,
    /// 0: any number.
    per_address: usize,
    open: AtomicUsize,
    /// Empty where nobody counts; never more entries than open connections.
    addresses: Mutex<HashMap<IpAddr, usize>>,
    gauge: prometheus::IntGauge,
}

/// Why there is no place; the word that metrics show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Node,
    Address,
}

impl Full {
    pub fn as_str(self) -> &'static str {
        match self {
            Full::Node => "connections",
            Full::Address => "connections_per_address",
        }
    }
}

/// One of the connections that may be open; given back when dropped.
pub struct Place {
    places: Arc<Places>,
    network: Option<IpAddr>,
}

impl Places {
    pub fn new(max: usize, per_address: usize, gauge: prometheus::IntGauge) -> Arc<Self> {
        Arc::new(Self { max, per_address, open: AtomicUsize::new(0), addresses: Mutex::default(), gauge })
    }

    pub fn take(self: &Arc<Self>, address: IpAddr) -> Result<Place, Full> {
        self.gauge.inc();
        // From here on whoever returns early gives back what was taken.
        let mut place = Place { places: self.clone(), network: None };
        if self.open.fetch_add(1, Ordering::AcqRel) >= self.max {
            return Err(Full::Node);
        }
        if self.per_address > 0 {
            let network = network(address);
            let mut addresses = self.addresses();
            let open = addresses.entry(network).or_default();
            if *open >= self.per_address {
                drop(addresses);
                return Err(Full::Address);
            }
            *open += 1;
            place.network = Some(network);
        }
        Ok(place)
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Whole at each step, whoever panicked.
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let places = &self.places;
        if let Some(network) = self.network {
            let mut addresses = places.addresses();
            if let Some(open) = addresses.get_mut(&network) {
                *open -= 1;
                if *open == 0 {
                    addresses.remove(&network);
                }
            }
        }
        places.open.fetch_sub(1, Ordering::AcqRel);
        places.gauge.dec();
    }
}

/// What one caller has at the least: an IPv4 address, or a /64 of IPv6, any address of which is free to be chosen.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(max: usize, per_address: usize) -> Arc<Places> {
        Places::new(max, per_address, prometheus::IntGauge::new("open", "open").unwrap())
    }

    #[test]
    fn an_address_has_its_share_and_no_more() {
        let places = places(10, 2);
        let take = |address: &str| places.take(address.parse().unwrap());
        let (first, _second) = (take("10.0.0.1").unwrap(), take("::ffff:10.0.0.1").unwrap());
        assert_eq!(take("10.0.0.1").err(), Some(Full::Address));
        let _others = [take("2001:db8::1").unwrap(), take("2001:db8::2").unwrap()];
        assert_eq!(take("2001:db8::3").err(), Some(Full::Address));
        let _neighbour = take("2001:db8:0:1::1").unwrap();
        drop(first);
        assert!(take("10.0.0.1").is_ok());
        assert_eq!(places.addresses().len(), 3);
        assert_eq!(places.gauge.get(), 4);
    }

    #[test]
    fn the_node_has_an_end_and_refusals_take_nothing() {
        let places = places(1, 0);
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let place = places.take(address).unwrap();
        for _ in 0..3 {
            assert_eq!(places.take(address).err(), Some(Full::Node));
        }
        drop(place);
        assert_eq!((places.gauge.get(), places.open.load(Ordering::Relaxed)), (0, 0));
        assert!(places.take(address).is_ok());
        assert!(places.addresses().is_empty());
    }
}
