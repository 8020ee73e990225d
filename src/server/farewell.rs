//! A last word to a client whose request is not even read.

use std::cell::Cell;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the client may take to hear it.
const WITHIN: Duration = Duration::from_secs(1);

/// What is read and thrown away of what the client had sent meanwhile: closing a socket with unread bytes resets the
/// connection, and what was said is lost.
const HEAR_OUT: usize = 64 * 1024;

/// Clients of one worker that are told at the same time; further ones are just closed.
const FEW: usize = 64;

/// Plain HTTP on a TLS port. There is no row in the table of rejections for it: nothing of the request is looked at.
pub(super) const SPEAKS_TLS: &str = "HTTP/1.1 400 Bad Request\r\n\
     content-type: text/plain; charset=utf-8\r\ncache-control: no-store\r\ncontent-length: 54\r\nconnection: close\r\n\
     \r\nThis port speaks TLS: write https:// in the address.\r\n";

/// The row `too_many_connections`, without a request ID: no request was read.
pub(super) const TOO_MANY_CONNECTIONS: &str = "HTTP/1.1 503 Service Unavailable\r\n\
     content-type: application/problem+json\r\ncache-control: no-store\r\nretry-after: 1\r\ncontent-length: 122\r\n\
     connection: close\r\n\r\n\
     {\"status\":503,\"title\":\"The gateway holds as many connections as it may.\",\
     \"cause\":\"too_many_connections\",\"blame\":\"gateway\"}";

/// Says it and closes.
pub(super) async fn say(mut stream: TcpStream, words: &'static str) {
    // The client may be gone, or not listen: then it does not hear it.
    let _ = timeout(WITHIN, async {
        stream.write_all(words.as_bytes()).await?;
        stream.shutdown().await?;
        let mut heard = 0;
        let mut buffer = [0; 4096];
        while heard < HEAR_OUT {
            match stream.read(&mut buffer).await? {
                0 => break,
                length => heard = heard.saturating_add(length),
            }
        }
        Ok::<_, std::io::Error>(())
    })
    .await;
}

thread_local! {
    static BEING_TOLD: Cell<usize> = const { Cell::new(0) };
}

/// One client of this worker that is being told something.
struct Told;

impl Told {
    fn new() -> Told {
        BEING_TOLD.set(BEING_TOLD.get().saturating_add(1));
        Told
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        BEING_TOLD.set(BEING_TOLD.get().saturating_sub(1));
    }
}

/// Says it on a task of its own, unless too many are being told something already.
pub(super) fn say_if_few(stream: TcpStream, words: &'static str) {
    if BEING_TOLD.get() >= FEW {
        return;
    }
    let told = Told::new();
    tokio::task::spawn_local(async move {
        let _told = told;
        say(stream, words).await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::rejection::Cause;

    #[test]
    fn lengths_are_right_and_the_row_is_the_table_s() {
        for words in [SPEAKS_TLS, TOO_MANY_CONNECTIONS] {
            let (head, body) = words.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
        }
        let row = Cause::TooManyConnections.row();
        let (head, body) = TOO_MANY_CONNECTIONS.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {}\r\n", row.status)));
        for part in [row.cause, row.title, row.blame.as_str(), row.status.as_str()] {
            assert!(body.contains(part), "{part}");
        }
    }

    #[tokio::test]
    async fn survives_what_the_client_was_sending() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        let hear = async {
            client.read_to_end(&mut heard).await.unwrap();
            client.shutdown().await.unwrap();
        };
        tokio::join!(say(server, SPEAKS_TLS), hear);
        assert_eq!(heard, SPEAKS_TLS.as_bytes());
    }
}
