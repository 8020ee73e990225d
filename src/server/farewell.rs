//! A last word to a client whose request is not even read.

use std::cell::Cell;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::request::record::fresh_id;
use crate::request::refusal::farewell;
use crate::request::rejection::Cause;
use crate::worker::Worker;

/// How long the client may take to hear it.
const WITHIN: Duration = Duration::from_secs(1);

/// What is read and thrown away of what the client had sent meanwhile: closing a socket with unread bytes resets the
/// connection, and what was said is lost.
const HEAR_OUT: usize = 64 * 1024;

/// Clients of one worker that are told at the same time; further ones are just closed.
const FEW: usize = 64;

/// Says what `cause` means, counts it, and closes.
pub(super) async fn say(worker: &Worker, stream: TcpStream, cause: Cause) {
    worker.metrics.rejected(worker.id, cause);
    speak(stream, &farewell(cause, &fresh_id())).await;
}

async fn speak(mut stream: TcpStream, words: &str) {
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
pub(super) fn say_if_few(stream: TcpStream, cause: Cause) {
    if BEING_TOLD.get() >= FEW {
        return;
    }
    let told = Told::new();
    tokio::task::spawn_local(async move {
        let _told = told;
        speak(stream, &farewell(cause, &fresh_id())).await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_right_and_the_row_is_the_table_s() {
        for cause in [Cause::PlainHttp, Cause::TooManyConnections] {
            let words = farewell(cause, &fresh_id());
            let (head, body) = words.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
            let row = cause.row();
            assert!(head.starts_with(&format!("HTTP/1.1 {}\r\n", row.status)));
            let told: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!((&told["cause"], &told["detail"]), (&row.cause.into(), &row.title.into()));
            assert_eq!(head.contains("\r\nretry-after: 1\r\n"), row.status == 503);
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
        tokio::join!(speak(server, "last words"), hear);
        assert_eq!(heard, b"last words");
    }
}
