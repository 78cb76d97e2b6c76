//! Calls under way: of the methods that need no token, and of callers that show
//! none, so that nobody takes the places of everyone else.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak, atomic::AtomicUsize},
};

use parking_lot::Mutex;

use super::{AuthError, peer::network, rates::StreamPlace};

/// Most calls at once of the methods that need no token.
pub const MAX_PROBE_STREAMS: usize = 1024;
/// Most of them from one address.
pub const MAX_ADDRESS_PROBE_STREAMS: usize = 256;

/// The calls under way of each of many.
#[derive(Debug)]
pub struct CallCounts<K>(Mutex<HashMap<K, Weak<AtomicUsize>>>);

impl<K> Default for CallCounts<K> {
    fn default() -> CallCounts<K> {
        CallCounts(Mutex::default())
    }
}

impl<K: Eq + Hash> CallCounts<K> {
    /// A place among one's `maximum`, if there is one.
    pub fn take(&self, one: K, maximum: usize) -> Option<StreamPlace> {
        StreamPlace::take(&self.of(one), maximum)
    }

    fn of(&self, one: K) -> Arc<AtomicUsize> {
        let mut counts = self.0.lock();
        if let Some(count) = counts.get(&one).and_then(Weak::upgrade) {
            return count;
        }
        // Those of which no call is under way make way for new ones.
        if counts.len() == counts.capacity() {
            counts.retain(|_, count| count.strong_count() > 0);
        }
        let count = Arc::new(AtomicUsize::new(0));
        counts.insert(one, Arc::downgrade(&count));
        count
    }
}

/// The calls under way of the methods that need no token.
#[derive(Debug, Default)]
pub struct OpenCalls {
    all: Arc<AtomicUsize>,
    addresses: CallCounts<IpAddr>,
}

impl OpenCalls {
    /// The places that a call holds until it has been answered. Peers of a
    /// socket file have no address, and share the server's.
    ///
    /// # Errors
    /// [`AuthError::ProbeStreams`] if there are none left.
    pub fn begin(&self, peer: Option<SocketAddr>) -> Result<Vec<StreamPlace>, AuthError> {
        let refused = |limit, maximum| AuthError::ProbeStreams { limit, maximum };
        let mut places = Vec::with_capacity(2);
        if let Some(peer) = peer {
            let maximum = MAX_ADDRESS_PROBE_STREAMS;
            let own = self.addresses.take(network(peer), maximum);
            places.push(own.ok_or_else(|| refused("max_address_probe_streams", maximum))?);
        }
        let place = StreamPlace::take(&self.all, MAX_PROBE_STREAMS);
        places.push(place.ok_or_else(|| refused("max_probe_streams", MAX_PROBE_STREAMS))?);
        Ok(places)
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
    fn those_without_calls_are_forgotten() {
        let counts = CallCounts::default();
        for number in 0..10_000_u32 {
            counts.take(number, 1).expect("a place");
        }
        assert!(counts.0.lock().len() < 100);
        let held = counts.take(0, 1);
        assert!(counts.take(0, 1).is_none() && counts.take(1, 1).is_some());
        drop(held);
        assert!(counts.take(0, 1).is_some());
    }
}
