//! The PROXY protocol, versions 1 and 2: what a proxy in front says of the client before the client's own bytes.
//!
//! The header is read to its last byte and not one further: what follows belongs to TLS or HTTP.

use std::io;
use std::net::SocketAddr;

use ppp::{v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// What every version 2 header begins with.
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What every version 1 header begins with.
const V1_PREFIX: &[u8] = b"PROXY ";

/// Neither version's shortest header is shorter: the signature of version 2, most of `PROXY UNKNOWN\r\n`.
const LEAST: usize = 12;

/// Version 2 without addresses: signature, version and command, family and protocol, length.
const V2_FIXED: usize = 16;

/// The longest version 1 header, line break included.
const V1_LONGEST: usize = 107;

/// What a version 2 header may carry; the addresses take 216 at most, the rest are fields that we do not read.
const V2_PAYLOAD_AT_MOST: usize = 4096;

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proxied {
    /// Nothing of a client: the connection is the proxy's own (`LOCAL`), or its kind is not known to us (`UNKNOWN`).
    Own,
    Client {
        remote: SocketAddr,
        local: SocketAddr,
    },
}

#[derive(Debug)]
pub(super) enum Failure {
    /// The bytes are no PROXY protocol header.
    Malformed,
    Read(io::Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Malformed => f.write_str("no valid PROXY protocol header"),
            Failure::Read(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Read(error)
    }
}

/// Reads the header. The caller bounds the time.
pub(super) async fn read(stream: &mut TcpStream) -> Result<Proxied, Failure> {
    let mut header = Vec::with_capacity(V1_LONGEST);
    // As soon as neither version can be meant it is refused; a client that speaks first and waits gets its answer.
    while header.len() < LEAST {
        let mut rest = [0; LEAST];
        let wanted = rest.get_mut(header.len()..).unwrap_or_default();
        let length = stream.read(wanted).await?;
        if length == 0 {
            return Err(Failure::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        header.extend_from_slice(wanted.get(..length).unwrap_or_default());
        if !may_become(&header, V2_SIGNATURE) && !may_become(&header, V1_PREFIX) {
            return Err(Failure::Malformed);
        }
    }
    if header.starts_with(V2_SIGNATURE) { read_v2(stream, header).await } else { read_v1(stream, header).await }
}

/// Whether what came is the beginning of `prefix`, or begins with it.
fn may_become(came: &[u8], prefix: &[u8]) -> bool {
    came.starts_with(prefix) || prefix.starts_with(came)
}

async fn read_v2(stream: &mut TcpStream, mut header: Vec<u8>) -> Result<Proxied, Failure> {
    let mut fixed = [0; V2_FIXED - LEAST];
    stream.read_exact(&mut fixed).await?;
    let [_, _, high, low] = fixed;
    header.extend_from_slice(&fixed);
    let payload = usize::from(u16::from_be_bytes([high, low]));
    if payload > V2_PAYLOAD_AT_MOST {
        return Err(Failure::Malformed);
    }
    header.resize(V2_FIXED.saturating_add(payload), 0);
    stream.read_exact(header.get_mut(V2_FIXED..).unwrap_or_default()).await?;

    let header = v2::Header::try_from(&*header).map_err(|_| Failure::Malformed)?;
    match (header.command, header.protocol, header.addresses) {
        (v2::Command::Proxy, v2::Protocol::Stream, v2::Addresses::IPv4(addresses)) => Ok(Proxied::Client {
            remote: (addresses.source_address, addresses.source_port).into(),
            local: (addresses.destination_address, addresses.destination_port).into(),
        }),
        (v2::Command::Proxy, v2::Protocol::Stream, v2::Addresses::IPv6(addresses)) => Ok(Proxied::Client {
            remote: canonical((addresses.source_address, addresses.source_port).into()),
            local: canonical((addresses.destination_address, addresses.destination_port).into()),
        }),
        (v2::Command::Local | v2::Command::Proxy, _, _) => Ok(Proxied::Own),
    }
}

async fn read_v1(stream: &mut TcpStream, mut header: Vec<u8>) -> Result<Proxied, Failure> {
    // Peeked at first, so that nothing beyond the line break is taken.
    while !header.ends_with(b"\n") {
        let mut ahead = [0; V1_LONGEST];
        let left = V1_LONGEST.saturating_sub(header.len());
        let ahead = ahead.get_mut(..left).unwrap_or_default();
        if ahead.is_empty() {
            return Err(Failure::Malformed);
        }
        let seen = stream.peek(ahead).await?;
        let seen = ahead.get_mut(..seen).unwrap_or_default();
        if seen.is_empty() {
            return Err(Failure::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        let ours = memchr::memchr(b'\n', seen).map_or(seen.len(), |at| at.saturating_add(1));
        let ours = seen.get_mut(..ours).unwrap_or_default();
        stream.read_exact(ours).await?;
        header.extend_from_slice(ours);
    }
    let parsed = v1::Header::try_from(&*header).map_err(|_| Failure::Malformed)?;
    // The parser stops at the first line break; there must be no other before the end.
    if parsed.header.len() != header.len() {
        return Err(Failure::Malformed);
    }
    Ok(match parsed.addresses {
        v1::Addresses::Unknown => Proxied::Own,
        v1::Addresses::Tcp4(addresses) => Proxied::Client {
            remote: (addresses.source_address, addresses.source_port).into(),
            local: (addresses.destination_address, addresses.destination_port).into(),
        },
        v1::Addresses::Tcp6(addresses) => Proxied::Client {
            remote: canonical((addresses.source_address, addresses.source_port).into()),
            local: canonical((addresses.destination_address, addresses.destination_port).into()),
        },
    })
}

/// An IPv4 address that came in IPv6 clothes, as IPv4.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// What is read when `pieces` arrive one by one, and what is left for TLS or HTTP.
    async fn arrive(pieces: &[&[u8]]) -> (Result<Proxied, Failure>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let send = async {
            for piece in pieces {
                // A refusal may close the connection in between.
                let _ = client.write_all(piece).await;
                tokio::task::yield_now().await;
            }
            let _ = client.shutdown().await;
        };
        let receive = async {
            let proxied = read(&mut server).await;
            let mut left = Vec::new();
            if proxied.is_ok() {
                server.read_to_end(&mut left).await.unwrap();
            }
            drop(server);
            (proxied, left)
        };
        tokio::join!(send, receive).1
    }

    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let mut header = V2_SIGNATURE.to_vec();
        header.extend([command, family]);
        header.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        header.extend(payload);
        header
    }

    fn client(remote: &str, local: &str) -> Proxied {
        Proxied::Client { remote: remote.parse().unwrap(), local: local.parse().unwrap() }
    }

    #[tokio::test]
    async fn version_1() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\r\n";
        let expected = client("192.0.2.1:5000", "198.51.100.2:443");
        let (proxied, left) = arrive(&[line, b"GET / HTTP/1.1\r\n\r\n"]).await;
        assert_eq!((proxied.unwrap(), &*left), (expected, &b"GET / HTTP/1.1\r\n\r\n"[..]));

        let whole = [&line[..], b"\x16rest\nmore"].concat();
        let (proxied, left) = arrive(&[&whole]).await;
        assert_eq!((proxied.unwrap(), &*left), (expected, &b"\x16rest\nmore"[..]));

        let bytes: Vec<_> = line.chunks(1).collect();
        assert_eq!(arrive(&bytes).await.0.unwrap(), expected);

        let (proxied, _) = arrive(&[b"PROXY TCP6 2001:db8::1 2001:db8::2 5000 443\r\n"]).await;
        assert_eq!(proxied.unwrap(), client("[2001:db8::1]:5000", "[2001:db8::2]:443"));
        let (proxied, left) = arrive(&[b"PROXY UNKNOWN\r\nx"]).await;
        assert_eq!((proxied.unwrap(), &*left), (Proxied::Own, &b"x"[..]));
        let (proxied, _) = arrive(&[b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"]).await;
        assert_eq!(proxied.unwrap(), Proxied::Own);
    }

    #[tokio::test]
    async fn version_2() {
        let payload = [192, 0, 2, 1, 198, 51, 100, 2, 0x13, 0x88, 1, 187];
        let whole = [&v2(0x21, 0x11, &payload)[..], b"rest"].concat();
        let (proxied, left) = arrive(&[&whole]).await;
        assert_eq!((proxied.unwrap(), &*left), (client("192.0.2.1:5000", "198.51.100.2:443"), &b"rest"[..]));

        let bytes: Vec<_> = whole.chunks(1).collect();
        assert_eq!(arrive(&bytes).await.0.unwrap(), client("192.0.2.1:5000", "198.51.100.2:443"));

        // Fields after the addresses are skipped.
        let fields = [&payload[..], &[3, 0, 1, 9]].concat();
        let whole = [&v2(0x21, 0x11, &fields)[..], b"rest"].concat();
        let (proxied, left) = arrive(&[&whole]).await;
        assert_eq!((proxied.unwrap(), &*left), (client("192.0.2.1:5000", "198.51.100.2:443"), &b"rest"[..]));

        // An IPv4 client of a dual-stack proxy.
        let mut mapped = [0; 36];
        mapped[10..16].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
        mapped[26..32].copy_from_slice(&[0xff, 0xff, 198, 51, 100, 2]);
        mapped[32..].copy_from_slice(&[0x13, 0x88, 1, 187]);
        let (proxied, _) = arrive(&[&v2(0x21, 0x21, &mapped)]).await;
        assert_eq!(proxied.unwrap(), client("192.0.2.1:5000", "198.51.100.2:443"));

        for own in [v2(0x20, 0, &[]), v2(0x20, 0x11, &payload), v2(0x21, 0, &[]), v2(0x21, 0x12, &payload)] {
            let (proxied, left) = arrive(&[&own, b"rest"]).await;
            assert_eq!((proxied.unwrap(), &*left), (Proxied::Own, &b"rest"[..]));
        }
    }

    #[tokio::test]
    async fn what_is_refused() {
        let long = [&b"PROXY TCP4 "[..], &[b'1'; 120], b"\r\n"].concat();
        let huge = v2(0x21, 0x11, &[0; V2_PAYLOAD_AT_MOST + 1]);
        let cases: &[&[u8]] = &[
            b"G",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00",
            b"PROXY tcp4 192.0.2.1 198.51.100.2 5000 443\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 99999\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 5000\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 443 1\r\n",
            b"PROXY UNKNOWN\rPROXY TCP4 192.0.2.1 192.0.2.1 1 1\r\n",
            &long,
            &huge,
            &v2(0x31, 0x11, &[0; 12]),
            &v2(0x22, 0x11, &[0; 12]),
            &v2(0x21, 0x11, &[0; 11]),
            &v2(0x21, 0x41, &[0; 12]),
        ];
        for case in cases {
            let (proxied, _) = arrive(&[case]).await;
            assert!(matches!(proxied, Err(Failure::Malformed)), "{case:?}: {proxied:?}");
        }
        for cut in [&b""[..], b"PROXY", b"PROXY TCP4 192.0.2.1", &v2(0x21, 0x11, &[0; 12])[..20]] {
            let (proxied, _) = arrive(&[cut]).await;
            assert!(matches!(proxied, Err(Failure::Read(_))), "{cut:?}: {proxied:?}");
        }
    }
}
