//! Calls of the methods that need no token: how many there may be, in all and
//! from one address, so that nobody keeps everyone else's health checks out.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak, atomic::AtomicUsize},
};

use parking_lot::Mutex;

use super::{AuthError, rates::StreamPlace};

/// Most calls at once of the methods that need no token.
pub const MAX_PROBE_STREAMS: usize = 1024;
/// Most of them from one address.
pub const MAX_ADDRESS_PROBE_STREAMS: usize = 256;

/// The calls under way of the methods that need no token.
#[derive(Debug, Default)]
pub struct OpenCalls {
    all: Arc<AtomicUsize>,
    addresses: Mutex<HashMap<IpAddr, Weak<AtomicUsize>>>,
}

impl OpenCalls {
    /// The places that a call holds until it has been answered. Peers of a
    /// socket file have no address, and share the server's.
    ///
    /// # Errors
    /// [`AuthError::ProbeStreams`] if there are none left.
    pub fn begin(&self, peer: Option<SocketAddr>) -> Result<Vec<StreamPlace>, AuthError> {
        let take = |count: &Arc<AtomicUsize>, limit, maximum| {
            let place = StreamPlace::take(count, maximum);
            place.ok_or(AuthError::ProbeStreams { limit, maximum })
        };
        let mut places = Vec::with_capacity(2);
        if let Some(peer) = peer {
            let own = self.of(peer.ip().to_canonical());
            let limit = "max_address_probe_streams";
            places.push(take(&own, limit, MAX_ADDRESS_PROBE_STREAMS)?);
        }
        places.push(take(&self.all, "max_probe_streams", MAX_PROBE_STREAMS)?);
        Ok(places)
    }

    /// The count of one address.
    fn of(&self, address: IpAddr) -> Arc<AtomicUsize> {
        let mut addresses = self.addresses.lock();
        if let Some(count) = addresses.get(&address).and_then(Weak::upgrade) {
            return count;
        }
        // Those of which no call is under way make way for new ones.
        if addresses.len() == addresses.capacity() {
            addresses.retain(|_, count| count.strong_count() > 0);
        }
        let count = Arc::new(AtomicUsize::new(0));
        addresses.insert(address, Arc::downgrade(&count));
        count
    }

    /// Calls under way.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.all.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> Option<SocketAddr> {
        Some(SocketAddr::from(([192, 0, 2, last], 7)))
    }

    fn limit(refused: Result<Vec<StreamPlace>, AuthError>) -> &'static str {
        match refused {
            Err(AuthError::ProbeStreams { limit, .. }) => limit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn calls_are_bounded_by_address_and_in_all_and_given_back() {
        let calls = OpenCalls::default();
        let mut held = Vec::new();
        for _ in 0..MAX_ADDRESS_PROBE_STREAMS {
            held.push(calls.begin(peer(1)).expect("a place"));
        }
        assert_eq!(limit(calls.begin(peer(1))), "max_address_probe_streams");
        let mapped = "[::ffff:192.0.2.1]:9".parse().ok();
        assert_eq!(limit(calls.begin(mapped)), "max_address_probe_streams");
        let left = MAX_PROBE_STREAMS - MAX_ADDRESS_PROBE_STREAMS;
        for index in 0..left {
            let last = u8::try_from(2 + index % 200).expect("small");
            held.push(calls.begin(peer(last)).expect("a place"));
        }
        for one in [peer(250), None] {
            assert_eq!(limit(calls.begin(one)), "max_probe_streams");
        }
        held.clear();
        assert_eq!(calls.count(), 0);
        assert_eq!(calls.begin(peer(1)).expect("given back").len(), 2);
        assert_eq!(calls.begin(None).expect("given back").len(), 1);
    }

    #[test]
    fn addresses_without_calls_are_forgotten() {
        let calls = OpenCalls::default();
        for number in 0..10_000_u32 {
            let address = IpAddr::from(number.to_be_bytes());
            calls.begin(Some((address, 1).into())).expect("a place");
        }
        assert!(calls.addresses.lock().len() < 100);
    }
}
