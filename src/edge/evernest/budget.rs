//! Bytes of bodies in memory, by address. A key of Evernest comes inside the body, so strangers' bodies are read before anybody knows
//! whose they are (`decisions.md` section 5).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt as _;
use parking_lot::Mutex;

use crate::edge::callers::household;
use crate::types::limits;

/// Bytes held. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Budget(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// What one request holds. It is given back by itself.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    address: Option<IpAddr>,
    mine: Arc<Mutex<Mine>>,
}

#[derive(Debug, Default)]
struct Mine {
    bytes: usize,
    refused: bool,
}

impl Budget {
    /// A share for a request from this address; one over the Unix socket, which has none, is not counted.
    pub fn share(&self, address: Option<IpAddr>) -> Share {
        Share { budget: self.clone(), address: address.map(household), mine: Arc::default() }
    }

    fn take(&self, address: IpAddr, bytes: usize) -> bool {
        let mut held = self.0.lock();
        let of_address = held.by_address.get(&address).copied().unwrap_or_default();
        if of_address + bytes > limits::STRANGERS_BODY_BYTES_PER_ADDRESS || held.all + bytes > limits::STRANGERS_BODY_BYTES {
            return false;
        }
        held.all += bytes;
        held.by_address.insert(address, of_address + bytes);
        true
    }

    fn give_back(&self, address: IpAddr, bytes: usize) {
        let mut held = self.0.lock();
        held.all -= bytes;
        if let Some(of_address) = held.by_address.get_mut(&address) {
            *of_address -= bytes;
            if *of_address == 0 {
                held.by_address.remove(&address);
            }
        }
    }
}

impl Share {
    /// The body, each piece of which is counted as it comes. It breaks off where the budget is used up.
    pub fn counted(&self, body: Body) -> Body {
        let Some(address) = self.address else { return body };
        let (budget, mine) = (self.budget.clone(), self.mine.clone());
        Body::from_stream(body.into_data_stream().map(move |piece: Result<Bytes, axum::Error>| {
            let piece = piece?;
            let mut mine = mine.lock();
            if budget.take(address, piece.len()) {
                mine.bytes += piece.len();
                return Ok(piece);
            }
            mine.refused = true;
            Err(axum::Error::new(std::io::Error::other("the budget is used up")))
        }))
    }

    /// Did it break off for that?
    pub fn was_refused(&self) -> bool {
        self.mine.lock().refused
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.mine.lock().bytes);
        if let Some(address) = self.address.filter(|_| bytes > 0) {
            self.budget.give_back(address, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "192.0.2.1";

    fn at(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    async fn read(share: &Share, bytes: usize) -> bool {
        let whole = axum::body::to_bytes(share.counted(Body::from(vec![b' '; bytes])), usize::MAX).await;
        assert_eq!(whole.is_err(), share.was_refused());
        whole.is_ok()
    }

    #[tokio::test]
    async fn an_address_has_its_bytes_of_bodies_and_not_one_more_and_gets_them_back() {
        let budget = Budget::default();
        let most = limits::STRANGERS_BODY_BYTES_PER_ADDRESS;
        let first = budget.share(at(HERE));
        assert!(read(&first, most - 1).await);
        assert!(read(&budget.share(at(HERE)), 1).await);
        assert!(!read(&budget.share(at(HERE)), 2).await);
        assert!(read(&budget.share(at("192.0.2.2")), most).await, "others are left alone");
        assert!(read(&budget.share(None), 2 * most).await, "the socket is not counted");
        drop(first);
        assert!(read(&budget.share(at(HERE)), most).await);
        let held = budget.0.lock();
        assert_eq!((held.all, held.by_address.len()), (0, 0), "nothing is held that nobody has");
    }

    #[tokio::test]
    async fn all_strangers_together_have_their_bytes_and_not_one_more() {
        let budget = Budget::default();
        let each = limits::STRANGERS_BODY_BYTES_PER_ADDRESS;
        let mut shares = Vec::new();
        for n in 0..limits::STRANGERS_BODY_BYTES / each {
            let share = budget.share(Some(std::net::Ipv4Addr::from(0x0a00_0000 + n as u32).into()));
            assert!(budget.take(share.address.unwrap(), each), "{n}");
            share.mine.lock().bytes = each;
            shares.push(share);
        }
        assert!(!read(&budget.share(at(HERE)), 1).await);
        shares.pop();
        assert!(read(&budget.share(at(HERE)), 1).await);
    }
}
