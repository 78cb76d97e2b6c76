//! How many connections there may be, in all and from one address.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{auth::peer::network, rpc::Close, telemetry};

/// Descriptors kept for the store's files, the probes and what else is opened.
const SPARE_DESCRIPTORS: usize = 48;
/// Connections that are taken however few descriptors there are.
const FEWEST: usize = 8;

/// How many connections a server accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Most connections at once, from anywhere.
    pub total: usize,
    /// Most at once from one address.
    pub per_address: usize,
    /// How long one may live: asked to go after this, ended after twice this.
    pub age: Option<Duration>,
}

impl ConnectionLimits {
    /// These, or as many as the process has descriptors for.
    pub(in crate::server) fn within_descriptors(self) -> ConnectionLimits {
        let Some((most, open)) = descriptors() else {
            return self;
        };
        let available = most.saturating_sub(open + SPARE_DESCRIPTORS).max(FEWEST);
        if available < self.total {
            tracing::warn!(
                descriptors = most,
                open,
                connections = available,
                "the limit on open files allows fewer connections than max_connections: raise it \
                 (ulimit -n)"
            );
        }
        ConnectionLimits {
            total: self.total.min(available),
            ..self
        }
    }
}

/// Most descriptors of this process, and how many are open.
fn descriptors() -> Option<(usize, usize)> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))?;
    let most = line.split_whitespace().nth(3)?.parse().ok()?;
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
    Some((most, open))
}

/// The connections that are open.
#[derive(Debug)]
pub(in crate::server) struct Connections {
    pub(super) limits: ConnectionLimits,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
    /// Cancelled to close a connection, by its peer's address.
    ends: HashMap<SocketAddr, CancellationToken>,
}

/// One open connection; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    of: Arc<Connections>,
    peer: Option<SocketAddr>,
    end: CancellationToken,
}

impl Place {
    /// What is cancelled to end the connection.
    pub fn end(&self) -> CancellationToken {
        self.end.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.of.open.lock();
        open.total -= 1;
        if let Some(peer) = self.peer {
            open.ends.remove(&peer);
            let address = network(peer);
            if let Some(count) = open.by_address.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    open.by_address.remove(&address);
                }
            }
        }
        telemetry::connections_open(open.total);
    }
}

impl Connections {
    pub fn new(limits: ConnectionLimits) -> Arc<Connections> {
        Arc::new(Connections {
            limits,
            open: Mutex::default(),
        })
    }

    /// Ends connections by their peers' addresses.
    pub fn closer(self: &Arc<Self>) -> Close {
        let connections = Arc::clone(self);
        Arc::new(move |peer| {
            let end = connections.open.lock().ends.get(&peer).cloned();
            if let Some(end) = end {
                telemetry::connection_refused("unread");
                end.cancel();
            }
        })
    }

    /// A place for a connection from an address.
    ///
    /// # Errors
    /// The limit that leaves none.
    pub(super) fn enter(self: &Arc<Self>, peer: Option<SocketAddr>) -> Result<Place, &'static str> {
        let mut open = self.open.lock();
        if open.total >= self.limits.total {
            return Err("max_connections");
        }
        let end = CancellationToken::new();
        if let Some(peer) = peer {
            let from_there = open.by_address.entry(network(peer)).or_default();
            if *from_there >= self.limits.per_address {
                return Err("max_address_connections");
            }
            *from_there += 1;
            open.ends.insert(peer, end.clone());
        }
        open.total += 1;
        telemetry::connections_open(open.total);
        Ok(Place {
            of: Arc::clone(self),
            peer,
            end,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn limits(total: usize, per_address: usize) -> ConnectionLimits {
        ConnectionLimits {
            total,
            per_address,
            age: None,
        }
    }

    /// A connection from an address.
    pub fn address(last: u8) -> Option<SocketAddr> {
        Some(SocketAddr::from(([192, 0, 2, last], rand::random())))
    }

    #[test]
    fn places_are_bounded_in_all_and_by_address_and_given_back() {
        let connections = Connections::new(limits(3, 2));
        let mut held: Vec<_> = (0..2)
            .map(|_| connections.enter(address(1)).expect("a place"))
            .collect();
        assert_eq!(
            connections.enter(address(1)).err(),
            Some("max_address_connections")
        );
        let mapped = "[::ffff:192.0.2.1]:7".parse().ok();
        assert_eq!(
            connections.enter(mapped).err(),
            Some("max_address_connections"),
            "the same address, written as IPv6"
        );
        held.push(connections.enter(address(2)).expect("a place"));
        assert_eq!(connections.enter(address(3)).err(), Some("max_connections"));
        held.clear();
        assert!(connections.enter(address(1)).is_ok());
        let open = connections.open.lock();
        assert!(open.by_address.is_empty() && open.ends.is_empty());
    }
}
