//! Where to listen.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use serde::Deserialize;

/// Where to listen: at an IP address and a port, `localhost:PORT`, which is
/// 127.0.0.1, or on a socket file, `unix:/path`. Other names are not resolved:
/// their meaning may change, and with it who can reach the server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ListenAddress {
    /// An address and a port.
    Tcp(SocketAddr),
    /// The path of a socket file.
    Unix(PathBuf),
}

impl ListenAddress {
    /// The address and port, if it is not a socket file.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            ListenAddress::Tcp(address) => Some(*address),
            ListenAddress::Unix(_) => None,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddress, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            // unix:/path, unix:path and unix:///path, as in gRPC.
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err(format!("{text:?} names no socket file")),
                path => Ok(ListenAddress::Unix(PathBuf::from(path))),
            };
        }
        let plain = match text.strip_prefix("localhost:") {
            Some(port) => &format!("127.0.0.1:{port}"),
            None => text,
        };
        plain.parse().map(ListenAddress::Tcp).map_err(|_| {
            format!(
                "{text:?} is not an IP address and a port (127.0.0.1:50051, [::]:50051), nor \
                 localhost:PORT, nor unix:/path"
            )
        })
    }
}

impl TryFrom<String> for ListenAddress {
    type Error = String;

    fn try_from(text: String) -> Result<ListenAddress, String> {
        text.parse()
    }
}

/// Parses the permissions of a socket file: octal digits that leave its owner
/// access.
pub(super) fn mode(text: &str) -> Option<u32> {
    let mode = u32::from_str_radix(text, 8).ok()?;
    (mode <= 0o777 && mode & 0o600 == 0o600).then_some(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_the_loopback_address_and_other_names_are_refused() {
        let of = |text: &str| text.parse::<ListenAddress>().map(|it| it.to_string());
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

    #[test]
    fn a_socket_file_is_named_as_grpc_names_it() {
        for (text, shown) in [
            ("unix:/run/t.sock", "unix:/run/t.sock"),
            ("unix:///run/t.sock", "unix:/run/t.sock"),
            ("unix:t.sock", "unix:t.sock"),
        ] {
            let address: ListenAddress = text.parse().expect(text);
            assert_eq!((address.to_string().as_str(), address.tcp()), (shown, None));
        }
        assert!("unix:".parse::<ListenAddress>().is_err());
    }

    #[test]
    fn permissions_are_octal_digits_and_leave_the_owner_in() {
        assert_eq!((mode("600"), mode("0660")), (Some(0o600), Some(0o660)));
        for wrong in ["", "rw", "8", "1777", "060", "400", "-600"] {
            assert_eq!(mode(wrong), None, "{wrong}");
        }
    }
}
