//! A request's body as it arrives: whole, or line by line, within the bounds.
//!
//! A message that is larger than what a connection buffers anyway reserves its
//! bytes before it is read on: those that its length says, or, where nothing
//! says it, those of the largest message. Nothing is held while more is waited
//! for, so that no two messages wait for each other.

use std::{pin::Pin, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt as _, future::BoxFuture};
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;
use tokio::time::{Duration, Instant, timeout};
use tonic::Status;

use crate::bounds::Bounds;

/// Bytes of a message that may be buffered without having been reserved.
const FREE: usize = 64 << 10;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A request's body, read within the server's bounds.
pub struct Arrival {
    body: Pin<Box<dyn HttpBody<Data = Bytes, Error = Error> + Send>>,
    bounds: Arc<dyn Bounds>,
    buffer: BytesMut,
    /// How much of the buffer is known to have no line end.
    scanned: usize,
    ended: bool,
    /// How long the present message has been waited for.
    waited: Duration,
    /// Bytes of the present message that were handed out already.
    earlier: usize,
    reservation: Reservation,
    lines: u64,
}

/// The bytes that the present message has reserved.
pub struct Reservation {
    bounds: Arc<dyn Bounds>,
    reserved: usize,
    held: Option<Box<dyn Send + Sync>>,
}

impl Reservation {
    /// An allowance that has reserved nothing yet.
    pub fn new(bounds: Arc<dyn Bounds>) -> Reservation {
        Reservation {
            bounds,
            reserved: 0,
            held: None,
        }
    }

    /// Gives back what is held.
    pub fn release(&mut self) {
        self.held = None;
        self.reserved = 0;
    }

    /// Reserves `whole` bytes, if the message needs more than is free.
    ///
    /// # Errors
    /// A message over the limit, or one for which no bytes came free in time.
    pub async fn reserve(&mut self, needed: usize, whole: usize) -> Result<(), Status> {
        if needed > self.bounds.largest() {
            return Err(self.bounds.too_large(needed));
        }
        if needed <= FREE || needed <= self.reserved {
            return Ok(());
        }
        self.held = None;
        let bytes: BoxFuture<'static, _> = self.bounds.reserve(whole);
        let held = timeout(self.bounds.patience(0), bytes).await;
        self.held = Some(held.map_err(|_| self.bounds.budget_exhausted())?);
        self.reserved = whole;
        Ok(())
    }
}

impl Arrival {
    /// The body of a request.
    pub fn new<B>(body: B, bounds: Arc<dyn Bounds>) -> Arrival
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<Error>,
    {
        Arrival {
            body: Box::pin(body.map_err(Into::into)),
            reservation: Reservation::new(Arc::clone(&bounds)),
            bounds,
            buffer: BytesMut::new(),
            scanned: 0,
            ended: false,
            waited: Duration::ZERO,
            earlier: 0,
            lines: 0,
        }
    }

    /// The bounds that its messages are read within.
    pub fn bounds(&self) -> &Arc<dyn Bounds> {
        &self.bounds
    }

    /// Its length, if the request says it.
    pub fn length(&self) -> Option<usize> {
        let exact = self.body.size_hint().exact()?;
        usize::try_from(exact).ok()
    }

    /// All of it.
    ///
    /// # Errors
    /// If a bound is exceeded, or the connection breaks.
    pub async fn whole(&mut self) -> Result<Bytes, Status> {
        self.next_message();
        let length = self.length();
        if let Some(length) = length {
            self.reservation.reserve(length, length).await?;
            self.buffer.reserve(length.min(self.bounds.largest()));
        }
        while self.read(true).await? {
            let needed = self.buffer.len();
            self.reservation
                .reserve(needed, length.unwrap_or(self.bounds.largest()))
                .await?;
        }
        Ok(self.buffer.split().freeze())
    }

    /// The next line that is not blank, without its end; none after the last.
    ///
    /// # Errors
    /// See [`Arrival::whole`].
    pub async fn line(&mut self) -> Result<Option<Bytes>, Status> {
        self.next_message();
        loop {
            let unseen = self.buffer.get(self.scanned..).unwrap_or_default();
            if let Some(at) = unseen.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.scanned + at + 1);
                self.scanned = 0;
                if !is_blank(&line) {
                    self.lines += 1;
                    return Ok(Some(line.freeze()));
                }
                continue;
            }
            self.scanned = self.buffer.len();
            if self.ended {
                self.scanned = 0;
                let rest = self.buffer.split();
                return Ok((!is_blank(&rest)).then(|| rest.freeze()));
            }
            // Between messages a stream may pause as long as it likes.
            let timed = self.lines == 0 || !self.buffer.is_empty();
            self.read(timed).await?;
            let largest = self.bounds.largest();
            self.reservation
                .reserve(self.buffer.len().min(largest + 1), largest)
                .await?;
        }
    }

    /// The next bytes, at most `most`; none at the end.
    ///
    /// # Errors
    /// See [`Arrival::whole`].
    pub async fn piece(&mut self, most: usize) -> Result<Option<Bytes>, Status> {
        self.next_message();
        while self.buffer.len() < most && self.read(true).await? {}
        let length = self.buffer.len().min(most);
        let piece = self.buffer.split_to(length).freeze();
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// The next bytes as they come, for a parser that keeps what it needs and
    /// knows where a message ends ([`Arrival::next_message`]).
    ///
    /// # Errors
    /// See [`Arrival::whole`].
    pub async fn bytes(&mut self) -> Result<Option<Bytes>, Status> {
        if self.buffer.is_empty() && !self.read(true).await? {
            return Ok(None);
        }
        self.earlier += self.buffer.len();
        Ok(Some(self.buffer.split().freeze()))
    }

    /// Begins another message: what was handed out has been decoded by now.
    pub fn next_message(&mut self) {
        self.reservation.release();
        self.waited = Duration::ZERO;
        self.earlier = 0;
    }

    /// Waits for more; false at the end.
    async fn read(&mut self, timed: bool) -> Result<bool, Status> {
        if self.ended {
            return Ok(false);
        }
        // Buffered bytes need no timer.
        let frame = match self.body.frame().now_or_never() {
            Some(frame) => frame,
            None if timed => {
                let received = self.earlier + self.buffer.len();
                let left = self.bounds.patience(received).saturating_sub(self.waited);
                let since = Instant::now();
                let frame = timeout(left, self.body.frame()).await;
                self.waited += since.elapsed();
                frame.map_err(|_| self.bounds.too_slow(received))?
            }
            None => self.body.frame().await,
        };
        match frame {
            None => self.ended = true,
            Some(Err(error)) => return Err(Status::from_error(error)),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.buffer.extend_from_slice(&data);
                }
            }
        }
        Ok(!self.ended)
    }
}

fn is_blank(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_whitespace)
}
