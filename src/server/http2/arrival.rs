//! A request's body as it arrives: taken out of the connection's buffers at
//! once, given to its reader when it is asked for.
//!
//! h2 hands on every DATA frame as a slice of the buffer that it was read into,
//! of up to 16 KiB, and keeps an entry of some 250 bytes for each that nobody
//! has taken. Flow control counts neither: a peer that sends many small frames
//! to a call that waits, and large ones between them to a call that reads, would
//! make the server hold nearly all that it sends. So frames are taken as soon as
//! they are there, and small ones are copied into one growing buffer. What the
//! peer may send goes on only once the body has been read, so that what waits
//! here is what the connection's window allows.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::{Buf as _, Bytes, BytesMut};
use h2::{Reason, RecvStream};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;

/// A frame of at least this size may keep the buffer that it was read into.
const LARGE: usize = 8 << 10;
/// Most bytes that the reader is given at once of frames that were copied.
const PIECE: usize = 16 << 10;

/// What has arrived of a body and has not been read.
#[derive(Debug, Default)]
struct Arrived {
    frames: VecDeque<Bytes>,
    /// Small frames after those, in one.
    small: BytesMut,
}

impl Arrived {
    fn put(&mut self, frame: Bytes) {
        if frame.len() < LARGE {
            self.small.extend_from_slice(&frame);
            return;
        }
        if !self.small.is_empty() {
            let small = std::mem::take(&mut self.small);
            self.frames.push_back(exactly(small));
        }
        self.frames.push_back(frame);
    }

    fn take(&mut self) -> Option<Bytes> {
        if let Some(frame) = self.frames.front_mut() {
            if frame.len() > PIECE {
                return Some(frame.split_to(PIECE));
            }
            return self.frames.pop_front();
        }
        match self.small.len() {
            0 => None,
            1..=PIECE => Some(std::mem::take(&mut self.small).freeze()),
            _ => {
                // A copy, so that the rest alone owns its buffer, and can grow
                // in it.
                let piece = Bytes::copy_from_slice(self.small.get(..PIECE)?);
                self.small.advance(PIECE);
                Some(piece)
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.small.is_empty()
    }

    fn bytes(&self) -> usize {
        let frames: usize = self.frames.iter().map(Bytes::len).sum();
        frames + self.small.len()
    }
}

/// Small frames in a buffer that is no larger than they are.
fn exactly(small: BytesMut) -> Bytes {
    match small.capacity() > 2 * small.len() {
        true => Bytes::copy_from_slice(&small),
        false => small.freeze(),
    }
}

/// What comes after a body's data.
#[derive(Debug)]
enum End {
    Trailers(HeaderMap),
    Failed(h2::Error),
    Nothing,
}

#[derive(Debug)]
struct Shared {
    /// Kept until the reader has gone: with it goes what the connection's window
    /// still counts.
    stream: Option<RecvStream>,
    arrived: Arrived,
    end: Option<End>,
    reader: Option<Waker>,
    /// Wakes what takes the frames, once the reader has gone.
    taker: Option<Waker>,
}

/// The side that takes frames from the connection. A future that completes when
/// the body has ended, or nobody is there to read it.
pub(super) struct Taking(Arc<Mutex<Shared>>);

/// The side that reads.
#[derive(Debug)]
pub(super) struct ArrivingBody {
    shared: Arc<Mutex<Shared>>,
    /// What is left of the length that was stated.
    length: Option<u64>,
}

/// Both sides of a body; `length` is what its headers say.
pub(super) fn arriving(stream: RecvStream, length: Option<u64>) -> (Taking, ArrivingBody) {
    let length = match length {
        None if stream.is_end_stream() => Some(0),
        length => length,
    };
    let shared = Arc::new(Mutex::new(Shared {
        stream: Some(stream),
        arrived: Arrived::default(),
        end: None,
        reader: None,
        taker: None,
    }));
    (Taking(Arc::clone(&shared)), ArrivingBody { shared, length })
}

impl Future for Taking {
    type Output = ();

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<()> {
        let mut locked = self.0.lock();
        let shared = &mut *locked;
        let Some(stream) = &mut shared.stream else {
            return Poll::Ready(());
        };
        let mut some = false;
        let end = loop {
            match stream.poll_data(task) {
                Poll::Ready(Some(Ok(frame))) => {
                    shared.arrived.put(frame);
                    some = true;
                }
                Poll::Ready(Some(Err(error))) => break Some(End::Failed(error)),
                Poll::Ready(None) => match stream.poll_trailers(task) {
                    Poll::Ready(Ok(Some(trailers))) => break Some(End::Trailers(trailers)),
                    Poll::Ready(Ok(None)) => break Some(End::Nothing),
                    Poll::Ready(Err(error)) => break Some(End::Failed(error)),
                    Poll::Pending => break None,
                },
                Poll::Pending => break None,
            }
        };
        let ended = end.is_some();
        if ended {
            shared.end = end;
        } else {
            shared.taker = Some(task.waker().clone());
        }
        let reader = match some || ended {
            true => shared.reader.take(),
            false => None,
        };
        drop(locked);
        if let Some(reader) = reader {
            reader.wake();
        }
        match ended {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl HttpBody for ArrivingBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = self.get_mut();
        let mut shared = this.shared.lock();
        if let Some(data) = shared.arrived.take() {
            if let Some(stream) = &mut shared.stream {
                // Of a stream that is over nothing is counted any more.
                let _ = stream.flow_control().release_capacity(data.len());
            }
            if let Some(length) = &mut this.length {
                *length = length.saturating_sub(data.len() as u64);
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match shared.end.take() {
            None => {
                shared.reader = Some(task.waker().clone());
                return Poll::Pending;
            }
            Some(End::Trailers(trailers)) => {
                shared.end = Some(End::Nothing);
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            // RFC 9113, section 8.1: an early answer, to which the rest of the
            // request makes no difference.
            Some(End::Failed(error)) if error.reason() != Some(Reason::NO_ERROR) => {
                shared.end = Some(End::Nothing);
                return Poll::Ready(Some(Err(error)));
            }
            Some(End::Failed(_) | End::Nothing) => shared.end = Some(End::Nothing),
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.shared.lock();
        let over = match &shared.end {
            Some(End::Nothing) => true,
            Some(End::Trailers(_) | End::Failed(_)) => false,
            None => shared.stream.as_ref().is_none_or(RecvStream::is_end_stream),
        };
        over && shared.arrived.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for ArrivingBody {
    fn drop(&mut self) {
        let mut shared = self.shared.lock();
        let unread = std::mem::take(&mut shared.arrived).bytes();
        if let Some(mut stream) = shared.stream.take() {
            let _ = stream.flow_control().release_capacity(unread);
        }
        let taker = shared.taker.take();
        drop(shared);
        if let Some(taker) = taker {
            taker.wake();
        }
    }
}
