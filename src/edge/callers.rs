//! How many connections one address may have before it has shown who it is (`decisions.md` section 5).
//!
//! A stranger's connections cost handles and memory. Callers that are known by their door, the operator on the socket or on a trusted
//! loopback, are not counted here.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

/// Connections by address. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Callers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: u64,
    most_silent: u64,
    by_address: Mutex<HashMap<IpAddr, Count>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    open: u64,
    /// Of these, without a request so far.
    silent: u64,
}

/// A counted connection. It leaves by itself.
#[derive(Clone, Debug)]
pub struct Caller(Arc<Place>);

#[derive(Debug)]
struct Place {
    callers: Arc<Shared>,
    address: IpAddr,
    silent: AtomicBool,
}

impl Callers {
    /// At most `most` connections of an address, `most_silent` of which have sent no request yet.
    pub fn new(most: u64, most_silent: u64) -> Self {
        Self(Arc::new(Shared { most, most_silent, by_address: Mutex::default() }))
    }

    /// A place for one more connection of `address`; `None` when it has enough.
    pub fn enter(&self, address: IpAddr) -> Option<Caller> {
        let address = household(address);
        let mut by_address = self.0.by_address.lock();
        let count = by_address.get(&address).copied().unwrap_or_default();
        if count.open >= self.0.most || count.silent >= self.0.most_silent {
            return None;
        }
        by_address.insert(address, Count { open: count.open + 1, silent: count.silent + 1 });
        Some(Caller(Arc::new(Place { callers: self.0.clone(), address, silent: AtomicBool::new(true) })))
    }
}

impl Caller {
    /// It has sent a request.
    pub fn spoke(&self) {
        if self.0.silent.swap(false, Relaxed)
            && let Some(count) = self.0.callers.by_address.lock().get_mut(&self.0.address)
        {
            count.silent -= 1;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_address = self.callers.by_address.lock();
        if let Some(count) = by_address.get_mut(&self.address) {
            count.open -= 1;
            count.silent -= u64::from(*self.silent.get_mut());
            if count.open == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// Addresses that one subscriber of a network has: of IPv6 that is a /64.
pub fn household(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "192.0.2.1";

    fn enter(callers: &Callers, address: &str) -> Option<Caller> {
        callers.enter(address.parse().unwrap())
    }

    #[test]
    fn an_address_has_its_connections_and_not_one_more() {
        let callers = Callers::new(3, 3);
        let mut open: Vec<Caller> = (0..3).map(|n| enter(&callers, HERE).unwrap_or_else(|| panic!("connection {n}"))).collect();
        assert!(enter(&callers, HERE).is_none());
        open.iter().for_each(Caller::spoke);
        assert!(enter(&callers, HERE).is_none(), "talking makes no room among all");
        let _other = enter(&callers, "192.0.2.2").expect("others are left alone");
        open.pop();
        open.push(enter(&callers, HERE).expect("a closed one makes room"));
        drop(open);
        assert_eq!(callers.0.by_address.lock().len(), 1, "an address without connections is forgotten");
    }

    #[test]
    fn few_may_be_silent_and_a_request_makes_room() {
        let callers = Callers::new(10, 2);
        let first = enter(&callers, HERE).unwrap();
        let second = enter(&callers, HERE).unwrap();
        assert!(enter(&callers, HERE).is_none());
        first.spoke();
        first.spoke();
        let third = enter(&callers, HERE).expect("one has spoken");
        assert!(enter(&callers, HERE).is_none());
        drop((second, third));
        assert!(enter(&callers, HERE).is_some());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_and_mapped_addresses_as_what_they_are() {
        let callers = Callers::new(1, 1);
        let _first = enter(&callers, "2001:db8:1:2::1").unwrap();
        assert!(enter(&callers, "2001:db8:1:2:ffff::9").is_none());
        let _next = enter(&callers, "2001:db8:1:3::1").expect("another network");
        let _mapped = enter(&callers, "::ffff:192.0.2.1").unwrap();
        assert!(enter(&callers, HERE).is_none());
    }
}
