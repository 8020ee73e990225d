//! What comes from the client, frame by frame, and what it leads to (RFC 9113).

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};

use super::body::{Incoming, give_back};
use super::burden::Burden;
use super::shared::Shared;
use super::stream::{Asked, Stage, Stream, serve};
use crate::http1::buffer::poll_read;
use crate::http1::head::Limits;
use crate::http2::flow::INITIAL;
use crate::http2::frame::{self, Code, Fault, Frame, Head, LONGEST, PREFACE, Settings};
use crate::http2::hpack::decode::{Checked, Decoder, Take};
use crate::http2::request::{self, Refused};
use crate::http2::trailers;
use crate::request::rejection::Cause;
use crate::server::http1::limits;
use crate::server::stream::ClientStream;

/// Bytes read at once.
const READ: usize = 64 * 1024;

/// Part of a frame that is copied, so that it does not keep what the others came in.
const SMALL: usize = 4 * 1024;

/// Frames that a head may come in beside those that it needs for its bytes.
const SPARE_FRAMES: usize = 16;

/// Frames that only burden are earned by each request.
const EARNED_BY_REQUEST: u32 = 16;

/// The receiving side of a connection.
pub(super) struct Receiver {
    shared: Rc<Shared>,
    read: BytesMut,
    beginning: Beginning,
    limits: Limits,
    /// The longest head, packed.
    longest: usize,
    decoder: Decoder,
    /// A head whose last part has not come.
    block: Option<Box<Block>>,
    /// The last stream that the client has opened.
    last: u32,
    /// What the windows of its streams begin with.
    window: u32,
    burden: Burden,
    intake: Intake,
}

/// How far the client is with its beginning (section 3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beginning {
    Preface,
    Settings,
    Over,
}

/// Whether new streams are taken (section 6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intake {
    Open,
    /// The client was told to open no more, and has not said yet that it has heard so.
    Closing,
    Heard,
    /// It was told which was the last; others are not looked at.
    Closed,
    /// The client itself will open no more.
    Left,
}

/// The parts of a head.
struct Block {
    stream: u32,
    end_stream: bool,
    bytes: Vec<u8>,
    frames: usize,
}

/// For a head that nobody wants, but which later ones may refer to.
struct Nobody;

impl Take for Nobody {
    fn take(&mut self, _: &[u8], _: &[u8], checked: Checked) -> Checked {
        checked
    }
}

const PROTOCOL: Fault = Fault::Connection(Code::Protocol);
const CALM: Fault = Fault::Connection(Code::EnhanceYourCalm);

impl Receiver {
    /// `longest`: what a head may take at most, packed.
    pub(super) fn new(shared: &Rc<Shared>, longest: usize) -> Receiver {
        Receiver {
            shared: Rc::clone(shared),
            read: BytesMut::new(),
            beginning: Beginning::Preface,
            limits: limits(&shared.listener.settings),
            longest,
            decoder: Decoder::default(),
            block: None,
            last: 0,
            window: INITIAL,
            burden: Burden::new(),
            intake: Intake::Open,
        }
    }

    /// Reads once; zero at the end of the stream.
    pub(super) fn poll_fill(
        &mut self,
        stream: &mut ClientStream,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<usize>> {
        poll_read(stream, cx, &mut self.read, READ)
    }

    /// Whether a head is waited for whose first part has come.
    pub(super) fn is_amid_head(&self) -> bool {
        self.block.is_some()
    }

    pub(super) fn intake(&self) -> Intake {
        self.intake
    }

    pub(super) fn last(&self) -> u32 {
        self.last
    }

    pub(super) fn becomes(&mut self, intake: Intake) {
        self.intake = intake;
    }

    /// Takes all whole frames that have come.
    ///
    /// # Errors
    /// What the connection has to end with.
    pub(super) fn take(&mut self) -> Result<(), Code> {
        if self.beginning == Beginning::Preface {
            let length = self.read.len().min(PREFACE.len());
            if self.read.get(..length) != PREFACE.get(..length) {
                return Err(Code::Protocol);
            }
            if length < PREFACE.len() {
                return Ok(());
            }
            self.read.advance(length);
            self.beginning = Beginning::Settings;
        }
        // Taken out, so that the frames can be slices of it.
        let read = std::mem::take(&mut self.read);
        let mut rest = &read[..];
        let taken = loop {
            match self.next(&mut rest) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(code) => break Err(code),
            }
        };
        let left = rest.len();
        self.read = read;
        self.read.advance(self.read.len().saturating_sub(left));
        if left < SMALL {
            // What is held while nothing comes is no more than what has come.
            self.read = BytesMut::from(&self.read[..]);
        }
        taken
    }

    /// Takes the next frame, if it is all there.
    fn next(&mut self, rest: &mut &[u8]) -> Result<bool, Code> {
        let Some(head) = Head::parse(rest) else { return Ok(false) };
        // Before any of it has come (section 4.2).
        if head.length > LONGEST {
            return Err(Code::FrameSize);
        }
        let Some((whole, behind)) = rest.split_at_checked(frame::HEAD.saturating_add(head.length)) else {
            return Ok(false);
        };
        *rest = behind;
        let payload = whole.get(frame::HEAD..).unwrap_or_default();
        match self.frame(head, payload) {
            Ok(()) => Ok(true),
            Err(Fault::Connection(code)) => Err(code),
            // Section 5.1: of what was never opened nothing can be closed. A priority may come before.
            Err(Fault::Stream(Code::Protocol)) if self.is_idle(head.stream) => Err(Code::Protocol),
            Err(Fault::Stream(code)) => self.reset(head.stream, code).map(|()| true),
        }
    }

    /// A stream broke the protocol (section 5.4.2). A client that makes the gateway reset its streams costs as much as one
    /// that does so itself.
    fn reset(&mut self, id: u32, code: Code) -> Result<(), Code> {
        match self.shared.find(id) {
            Some(stream) => self.shared.reset(&stream, code),
            None => self.shared.refuse(id, code),
        }
        if self.shared.count_reset() { Err(Code::EnhanceYourCalm) } else { Ok(()) }
    }

    fn burden(&mut self) -> Result<(), Fault> {
        let shared = &self.shared;
        self.burden.bear(|| shared.take_earned()).map_err(|_| CALM)
    }

    fn frame(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        let id = head.stream;
        let frame = Frame::parse(head, payload);
        if let Some(block) = &self.block {
            // Section 6.2: nothing comes between the parts of a head.
            return match frame {
                Ok(Frame::Continuation { block: part, end_headers }) if id == block.stream => {
                    self.continuation(part, end_headers)
                }
                Ok(_) | Err(_) => Err(PROTOCOL),
            };
        }
        if self.beginning == Beginning::Settings {
            match frame {
                Ok(Frame::Settings(_)) => self.beginning = Beginning::Over,
                Ok(_) | Err(_) => return Err(PROTOCOL),
            }
        }
        match frame? {
            Frame::Data { data, end_stream } => self.data(head, data, end_stream),
            Frame::Headers { block, end_stream, end_headers: true } => self.head(id, end_stream, block),
            Frame::Headers { block, end_stream, end_headers: false } => {
                self.bound(block.len(), 0)?;
                self.block = Some(Box::new(Block { stream: id, end_stream, bytes: block.to_vec(), frames: 0 }));
                Ok(())
            }
            Frame::RstStream => self.rst_stream(id),
            Frame::Settings(settings) => self.settings(settings),
            Frame::Ping(payload) => {
                self.shared.write_now(|out| frame::ping_ack(out, payload));
                self.burden()
            }
            Frame::PingAck(_) => {
                if self.intake == Intake::Closing {
                    self.intake = Intake::Heard;
                }
                self.burden()
            }
            Frame::GoAway => {
                match self.intake {
                    Intake::Open | Intake::Closing | Intake::Heard => self.intake = Intake::Left,
                    Intake::Closed | Intake::Left => {}
                }
                self.burden()
            }
            Frame::WindowUpdate(bytes) => self.window_update(id, bytes),
            Frame::Priority | Frame::SettingsAck | Frame::Unknown => self.burden(),
            // Of nothing.
            Frame::Continuation { .. } => Err(PROTOCOL),
        }
    }

    /// A head's parts are kept until all have come: so many bytes, and so many frames at most.
    fn bound(&self, bytes: usize, frames: usize) -> Result<(), Fault> {
        let most = (self.longest / LONGEST).saturating_add(SPARE_FRAMES);
        if bytes > self.longest || frames > most { Err(CALM) } else { Ok(()) }
    }

    fn continuation(&mut self, part: &[u8], end_headers: bool) -> Result<(), Fault> {
        let Some(mut block) = self.block.take() else { return Err(PROTOCOL) };
        block.frames = block.frames.saturating_add(1);
        self.bound(block.bytes.len().saturating_add(part.len()), block.frames)?;
        block.bytes.extend_from_slice(part);
        if end_headers {
            return self.head(block.stream, block.end_stream, &block.bytes);
        }
        self.block = Some(block);
        Ok(())
    }

    fn unpack(&mut self, block: &[u8], take: &mut impl Take) -> Result<(), Fault> {
        // Section 4.3.
        self.decoder.decode(block, take).map_err(|_| Fault::Connection(Code::Compression))
    }

    /// Whether the stream may have been opened: by the client, which has the odd numbers (section 5.1.1).
    fn is_idle(&self, id: u32) -> bool {
        id > self.last || id.is_multiple_of(2)
    }

    /// The fields of a request, or those behind its body.
    fn head(&mut self, id: u32, end_stream: bool, block: &[u8]) -> Result<(), Fault> {
        if id.is_multiple_of(2) {
            return Err(PROTOCOL);
        }
        if id > self.last {
            self.last = id;
            return self.request(id, end_stream, block);
        }
        match self.shared.find(id) {
            Some(stream) => self.trailers(&stream, end_stream, block),
            None => {
                self.unpack(block, &mut Nobody)?;
                self.burden()?;
                // Section 5.1: what was on its way when the stream was reset is ignored.
                if self.shared.has_reset(id) { Ok(()) } else { Err(Fault::Connection(Code::StreamClosed)) }
            }
        }
    }

    fn request(&mut self, id: u32, end_stream: bool, block: &[u8]) -> Result<(), Fault> {
        if self.intake == Intake::Closed {
            self.unpack(block, &mut Nobody)?;
            return self.burden();
        }
        if self.shared.active() >= self.shared.listener.settings.http2.max_streams.get() as usize {
            // Section 5.1.2: it may ask again.
            self.unpack(block, &mut Nobody)?;
            self.shared.refuse(id, Code::RefusedStream);
            return self.burden();
        }
        let mut reading = request::Reading::new(self.limits);
        self.unpack(block, &mut reading)?;
        let (asked, length) = match reading.finish() {
            Ok(head) => {
                let length = head.length;
                (Asked::Request(head), length)
            }
            Err(Refused::Malformed) => return Err(Fault::Stream(Code::Protocol)),
            Err(Refused::TooLarge) => (Asked::Refused(Cause::HeadersTooLarge), None),
            Err(Refused::TargetTooLong) => (Asked::Refused(Cause::TargetTooLong), None),
        };
        let body = match (end_stream, length) {
            (true, Some(1..)) => return Err(Fault::Stream(Code::Protocol)),
            (true, _) => Incoming::none(),
            (false, length) => Incoming::begin(length),
        };
        self.shared.earn(EARNED_BY_REQUEST);
        let stream = Rc::new(Stream::new(id, self.window, body));
        self.shared.open(&stream);
        // On the heap, so that the task itself is small: it is moved several times on its way to where it stays, and
        // allocators are slow to find room for large ones, which start at a cache line.
        tokio::task::spawn_local(Box::pin(serve(Rc::clone(&self.shared), stream, asked)));
        Ok(())
    }

    fn trailers(&mut self, stream: &Rc<Stream>, end_stream: bool, block: &[u8]) -> Result<(), Fault> {
        let mut reading = trailers::Reading::new(self.limits);
        self.unpack(block, &mut reading)?;
        let body = &mut *stream.body.borrow_mut();
        if !body.is_coming() {
            return Err(Fault::Stream(Code::StreamClosed));
        }
        match reading.finish() {
            // Section 8.1: they are the last.
            Ok(fields) if end_stream => body.trailers(fields),
            Ok(_) | Err(_) => Err(Fault::Stream(Code::Protocol)),
        }
    }

    fn data(&mut self, head: Head, data: &[u8], end_stream: bool) -> Result<(), Fault> {
        if self.is_idle(head.stream) {
            return Err(PROTOCOL);
        }
        // All of it counts, padding too (section 6.9.1).
        let flow = u32::try_from(head.length).unwrap_or(u32::MAX);
        if !self.shared.came(flow) {
            return Err(Fault::Connection(Code::FlowControl));
        }
        if data.is_empty() && !end_stream {
            self.burden()?;
        }
        let Some(stream) = self.shared.find(head.stream) else {
            self.shared.gave_back(flow);
            self.burden()?;
            let is_known = self.shared.has_reset(head.stream);
            return if is_known { Ok(()) } else { Err(Fault::Stream(Code::StreamClosed)) };
        };
        let taken = stream.body.borrow_mut().data(data, flow, end_stream);
        match taken {
            Ok(free) => {
                if !data.is_empty() {
                    self.shared.earn(1);
                }
                give_back(&self.shared, &stream, free);
                Ok(())
            }
            Err(fault) => {
                self.shared.gave_back(flow);
                Err(fault)
            }
        }
    }

    fn rst_stream(&mut self, id: u32) -> Result<(), Fault> {
        if self.is_idle(id) {
            return Err(PROTOCOL);
        }
        let Some(stream) = self.shared.find(id) else { return self.burden() };
        let was_asked = stream.stage() == Stage::Asked;
        self.shared.close(&stream);
        // What was answered has cost the client as much as it meant it to.
        if was_asked && self.shared.count_reset() { Err(CALM) } else { Ok(()) }
    }

    fn settings(&mut self, settings: Settings) -> Result<(), Fault> {
        if let Some(window) = settings.initial_window_size {
            let before = std::mem::replace(&mut self.window, window);
            let resized = self.shared.try_each(|stream| stream.change_window(|own| own.resize(before, window)));
            resized.map_err(|_| Fault::Connection(Code::FlowControl))?;
        }
        for most in [settings.least_header_table_size, settings.header_table_size].into_iter().flatten() {
            self.shared.resize_table(most);
        }
        self.shared.write_now(frame::settings_ack);
        self.burden()
    }

    fn window_update(&mut self, id: u32, bytes: u32) -> Result<(), Fault> {
        self.burden()?;
        if id == 0 {
            return self.shared.grow_window(bytes).map_err(|_| Fault::Connection(Code::FlowControl));
        }
        if self.is_idle(id) {
            return Err(PROTOCOL);
        }
        match self.shared.find(id) {
            Some(stream) => stream.change_window(|own| own.grow(bytes)).map_err(|_| Fault::Stream(Code::FlowControl)),
            // It may have been on its way (section 5.1).
            None => Ok(()),
        }
    }
}
