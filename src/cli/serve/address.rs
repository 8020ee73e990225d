//! Where `passerelle serve` listens: what was asked for, or a port by custom and else the next free one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};

/// Ports after the customary one that are tried.
const TRIES: u16 = 100;

/// An address to listen on, and the name that it was asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) address: SocketAddr,
    /// A name that is no address, for the certificate.
    pub(super) host: Option<String>,
}

/// `HOST:PORT`, `PORT` or `:PORT`; without a host it is loopback. For port 0 the kernel gives one, so that it can be told.
pub(super) fn parse(text: &str) -> Result<Asked, String> {
    let mut asked = read(text)?;
    if asked.address.port() == 0 {
        let bound = TcpListener::bind(asked.address).and_then(|listener| listener.local_addr());
        asked.address = bound.map_err(|error| format!("{}: {error}", asked.address))?;
    }
    Ok(asked)
}

fn read(text: &str) -> Result<Asked, String> {
    let port_of = |text: &str| text.parse::<u16>().ok();
    if let Some(port) = port_of(text).or_else(|| text.strip_prefix(':').and_then(port_of)) {
        return Ok(Asked { address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port), host: None });
    }
    if let Ok(address) = text.parse() {
        return Ok(Asked { address, host: None });
    }
    let wrong = || "write HOST:PORT, such as 127.0.0.1:8443, [::1]:8443 or 0.0.0.0:8443".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port_of(port).ok_or_else(wrong)?;
    if host == "localhost" {
        return Ok(Asked { address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port), host: None });
    }
    let addresses = (host, port).to_socket_addrs().map_err(|error| format!("{host}: {error}"))?;
    let address = addresses.min_by_key(SocketAddr::is_ipv6).ok_or_else(|| format!("{host} has no address"))?;
    Ok(Asked { address, host: Some(host.to_owned()) })
}

/// The port by custom on loopback, or the next that nobody has. `except`: one that is about to be taken.
pub(super) fn free(port: u16, except: Option<u16>) -> u16 {
    let is_free = |port: &u16| Some(*port) != except && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    (port..=port.saturating_add(TRIES)).find(is_free).unwrap_or(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_what_people_write() {
        let address = |text: &str| parse(text).map(|asked| asked.address.to_string());
        assert_eq!(address("127.0.0.1:8443"), Ok("127.0.0.1:8443".to_owned()));
        assert_eq!(address("0.0.0.0:443"), Ok("0.0.0.0:443".to_owned()));
        assert_eq!(address("[::1]:8443"), Ok("[::1]:8443".to_owned()));
        assert_eq!(address("9000"), Ok("127.0.0.1:9000".to_owned()));
        assert_eq!(address(":9000"), Ok("127.0.0.1:9000".to_owned()));
        assert_eq!(address("localhost:9000"), Ok("127.0.0.1:9000".to_owned()));
        assert_ne!(parse("127.0.0.1:0").unwrap().address.port(), 0);
        for wrong in ["", "here", "127.0.0.1", "127.0.0.1:many", "127.0.0.1:70000"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_taken_port_is_passed_over() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let other = free(port, None);
        assert_ne!(other, port);
        assert_ne!(free(other, Some(other)), other);
    }
}
