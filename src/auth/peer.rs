//! Who is counted as one peer if nothing but the address tells peers apart.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Bits of an IPv6 address that its network has: who has one address of a /64
/// usually has all of them (RFC 6177, RFC 7421).
const IPV6_NETWORK: u32 = 64;

/// What a peer's share of anything goes by: an IPv4 address, also on a socket of
/// IPv6, or the /64 that an IPv6 address is in.
pub fn network(peer: SocketAddr) -> IpAddr {
    match peer.ip().to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::MAX << (128 - IPV6_NETWORK);
            Ipv6Addr::from_bits(address.to_bits() & network).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_one_host_can_have_are_one() {
        let of = |text: &str| network(text.parse().expect("an address"));
        assert_eq!(of("[2001:db8:0:1::2]:1"), of("[2001:db8:0:1:ffff::3]:2"));
        assert_ne!(of("[2001:db8:0:1::2]:1"), of("[2001:db8:0:2::2]:1"));
        assert_eq!(of("192.0.2.1:1"), of("[::ffff:192.0.2.1]:2"));
        assert_ne!(of("192.0.2.1:1"), of("192.0.2.2:1"));
        assert_eq!(of("192.0.2.1:1").to_string(), "192.0.2.1");
    }
}
