//! Where `passerelle serve` is to listen, as people write it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

/// An address to listen on, and the name that it was asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) address: SocketAddr,
    /// A name that is no address, for the certificate.
    pub(super) host: Option<String>,
}

/// `HOST:PORT`, `PORT` or `:PORT`; without a host it is loopback.
pub(super) fn parse(text: &str) -> Result<Asked, String> {
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
        for wrong in ["", "here", "127.0.0.1", "127.0.0.1:many", "127.0.0.1:70000"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
