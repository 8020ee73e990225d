//! What streams share stays within its bounds.

use super::super::body::Incoming;
use super::super::shared::{Lacks, Shared};
use super::super::stream::Stream;
use super::*;
use crate::http2::flow::LARGEST;
use crate::http2::frame::{Code, HEAD, LONGEST};

fn shared() -> Shared {
    let worker = Rc::new(testing::worker(
        "[listener.http]\naddress = \"127.0.0.1:0\"\n[route.all]\npath = \"/\"\nrespond = { status = 200 }",
    ));
    let listener = Arc::clone(&worker.gateway().listeners["http"]);
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    Shared::new(worker, Rc::new(peer(address, address)), listener, LARGEST)
}

fn open(shared: &Shared, id: u32) -> Rc<Stream> {
    let stream = Rc::new(Stream::new(id, LARGEST, Incoming::none()));
    shared.open(&stream);
    stream
}

fn unsent(shared: &Shared) -> usize {
    shared.send(|buffer| buffer.len())
}

#[test]
fn answers_wait_for_room_before_the_output_is_large() {
    let shared = shared();
    shared.grow_window(1 << 30).unwrap();
    let streams: Vec<_> = (0..100).map(|number| open(&shared, 2 * number + 1)).collect();
    for stream in &streams {
        match shared.write_data(stream, &[0; 100_000], false) {
            Ok(written) => assert_eq!(written, LONGEST),
            Err(lacks) => {
                assert_eq!(lacks, Lacks::Room);
                shared.wait(stream, lacks);
            }
        }
    }
    assert!(unsent(&shared) <= 64 * 1024 + 4 * HEAD, "{}", unsent(&shared));
    // Those at the head of the line are called, as many as there is room for.
    shared.send(|buffer| buffer.clear());
    shared.call_waiting();
    let waiting = streams.iter().filter(|stream| stream.waits()).count();
    assert_eq!(waiting, 100 - 3 - 3);
    assert!(!streams[5].waits() && streams[6].waits());
}

/// Counts how often it is woken.
#[derive(Default)]
struct Counting(std::sync::atomic::AtomicUsize);

impl std::task::Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn who_lacks_something_else_holds_up_nobody_who_waits_for_room() {
    let shared = shared();
    let first = open(&shared, 1);
    while shared.write_data(&first, &[0; LONGEST], false).is_ok() {
        shared.send(|buffer| buffer.clear());
    }
    // All wait for room, and most will find that there is no window.
    let streams: Vec<_> = (1..=80).map(|number| open(&shared, 2 * number + 1)).collect();
    for stream in &streams {
        shared.wait(stream, Lacks::Room);
    }
    let counting = Arc::new(Counting::default());
    let mut turns = 0;
    loop {
        // As the connection's task does when it runs.
        shared.attend(&Arc::clone(&counting).into());
        let before = counting.0.load(std::sync::atomic::Ordering::Relaxed);
        shared.call_waiting();
        for stream in &streams[turns..streams.len().min(turns + 3)] {
            shared.in_turn(stream, || {
                assert_eq!(shared.write_data(stream, b"x", false), Err(Lacks::Window));
                shared.wait(stream, Lacks::Window);
            });
        }
        turns += 3;
        if turns >= streams.len() {
            return;
        }
        assert!(counting.0.load(std::sync::atomic::Ordering::Relaxed) > before, "nobody is called after {turns}");
    }
}

#[test]
fn streams_that_end_leave_the_lines() {
    let shared = shared();
    // The window of the whole connection is used up.
    let first = open(&shared, 1);
    while shared.write_data(&first, &[0; LONGEST], false).is_ok() {
        shared.send(|buffer| buffer.clear());
    }
    assert_eq!(shared.write_data(&first, b"x", true), Err(Lacks::Window));
    // The end alone needs no window.
    assert_eq!(shared.write_data(&first, b"", true), Ok(0));
    for number in 1..1000 {
        let stream = open(&shared, 2 * number + 1);
        shared.wait(&stream, Lacks::Window);
        shared.wait(&stream, Lacks::Window);
        assert_eq!(Rc::strong_count(&stream), 3);
        shared.reset(&stream, Code::Cancel);
        assert_eq!(Rc::strong_count(&stream), 1);
    }
}
