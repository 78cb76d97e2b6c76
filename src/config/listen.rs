//! Addresses to listen on.

use std::{net::SocketAddr, str::FromStr};

use serde::Deserialize;

/// An address to listen on: an IP address and a port, or `localhost:PORT`,
/// which is 127.0.0.1. Other names are not looked up: what a name means may
/// change, and with it who can reach the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ListenAddress(pub SocketAddr);

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddress, String> {
        let plain = match text.strip_prefix("localhost:") {
            Some(port) => &format!("127.0.0.1:{port}"),
            None => text,
        };
        plain.parse().map(ListenAddress).map_err(|_| {
            format!("{text:?} is not an IP address and a port (127.0.0.1:50051, [::]:50051), nor localhost:PORT")
        })
    }
}

impl TryFrom<String> for ListenAddress {
    type Error = String;

    fn try_from(text: String) -> Result<ListenAddress, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_the_loopback_address_and_other_names_are_refused() {
        let of = |text: &str| text.parse::<ListenAddress>().map(|it| it.0.to_string());
        assert_eq!(of("localhost:1"), Ok("127.0.0.1:1".to_owned()));
        assert_eq!(of("[::]:2"), Ok("[::]:2".to_owned()));
        for wrong in [
            "localhost",
            "localhost:",
            "localhost:x",
            "example.org:1",
            "127.0.0.1",
            "",
        ] {
            let error = of(wrong).expect_err(wrong);
            assert!(error.contains("localhost:PORT"), "{error}");
        }
    }
}
