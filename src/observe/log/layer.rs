//! The `tracing` layer: which events are logged, and their way into the queue.

use std::cell::RefCell;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::writer::Queue;
use super::{APPS, Live, format};
use crate::observe::access;

/// A buffer that grew past this for one long line is not kept.
const KEPT_BUFFER: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub(super) struct LogLayer {
    live: Arc<Live>,
    queue: Queue,
}

impl LogLayer {
    pub(super) fn new(live: Arc<Live>, queue: Queue) -> LogLayer {
        LogLayer { live, queue }
    }

    fn libraries(&self) -> Level {
        if self.live.level() >= Level::DEBUG { Level::WARN } else { Level::ERROR }
    }

    /// Access records follow their own key, whatever the level is. Libraries are heard from `error` upwards, at
    /// level `debug` from `warn`: some warn of whatever a client does wrong, and the rest is about their own insides.
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.is_span() {
            return false;
        }
        if metadata.target() == access::TARGET {
            return self.live.access();
        }
        if metadata.target() == APPS && self.live.hushed() {
            return false;
        }
        let ours = metadata.target().split("::").next() == Some(env!("CARGO_CRATE_NAME"));
        let most = if ours { self.live.level() } else { self.libraries() };
        *metadata.level() <= most
    }
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let level = self.live.level();
        Some(LevelFilter::from_level(if self.live.access() { level.max(Level::INFO) } else { level }))
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        BUFFER.with(|buffer| match buffer.try_borrow_mut() {
            Ok(mut buffer) => {
                buffer.clear();
                format::event(&mut buffer, event, self.live.format());
                self.queue.push(&buffer);
                if buffer.capacity() > KEPT_BUFFER {
                    *buffer = Vec::new();
                }
            }
            // A value that logs while it is being logged.
            Err(_) => {
                let mut buffer = Vec::new();
                format::event(&mut buffer, event, self.live.format());
                self.queue.push(&buffer);
            }
        });
    }
}
