//! The messages of a request, inflated as they arrive.
//!
//! Bounds on what arrives are kept by [`BoundedBody`](super::body::BoundedBody)
//! beneath; here they are kept for what that inflates to. What comes out is
//! framed as if it had never been compressed.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context as Task, Poll},
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures::future::BoxFuture;
use http_body::{Body as HttpBody, Frame};
use tonic::{Code, Status};

use super::{
    super::{
        budget::{MessageBytes, allowance},
        compression::{Encoding, Fault, Inflater, TURN},
        error::ApiError,
    },
    Bounds,
    body::{Sender, budget_exhausted},
    clock::Clock,
    framing::HEADER,
};

/// Bytes of a compressed message that are waited for before anything is
/// inflated: one that does not come on holds no decoder.
const GATHERED: usize = 64 << 10;
pin_project_lite::pin_project! {
    /// A body whose messages are inflated.
    pub(super) struct InflatedMessages<B> {
        #[pin]
        body: B,
        encoding: Encoding,
        bounds: Bounds,
        sender: Sender,
        // What has arrived and has not been looked at.
        arrived: Bytes,
        head: BytesMut,
        state: State,
        ready: VecDeque<Bytes>,
        // Of the message that is being inflated.
        granted: Option<MessageBytes>,
        failed: bool,
    }
}

/// Where in the stream of messages the reader is.
enum State {
    /// In the five bytes before a message.
    Head,
    /// In a message that is not compressed, with this much to come.
    Plain(usize),
    Compressed(Box<Compressed>),
}

/// The state of inflating one compressed message.
struct Compressed {
    /// Bytes that have yet to arrive.
    left: usize,
    /// Bytes that have arrived and are not inflated.
    gathered: BytesMut,
    input: Bytes,
    inflater: Option<Inflater>,
    inflated: VecDeque<Bytes>,
    /// What it may inflate to before it needs more of the budget.
    allowed: usize,
    waiting: Option<(BoxFuture<'static, MessageBytes>, Clock)>,
}

impl Compressed {
    fn new(length: usize, largest: usize) -> Compressed {
        Compressed {
            left: length,
            gathered: BytesMut::new(),
            input: Bytes::new(),
            inflater: None,
            inflated: VecDeque::new(),
            allowed: allowance(length, largest),
            waiting: None,
        }
    }
}

/// What came of looking at a message.
enum Step {
    /// All that has arrived of it is inflated.
    Hungry,
    /// Other work has its turn.
    Yield,
    /// It waits for bytes of the budget.
    Wait,
    /// It is whole: this is it, framed.
    Whole(VecDeque<Bytes>),
}

impl<B> InflatedMessages<B> {
    pub fn new(body: B, encoding: Encoding, bounds: Bounds, sender: Sender) -> InflatedMessages<B> {
        InflatedMessages {
            body,
            encoding,
            bounds,
            sender,
            arrived: Bytes::new(),
            head: BytesMut::new(),
            state: State::Head,
            ready: VecDeque::new(),
            granted: None,
            failed: false,
        }
    }
}

impl Compressed {
    /// Inflates what has arrived, for one turn.
    fn advance(
        &mut self,
        encoding: Encoding,
        bounds: &Bounds,
        sender: &Sender,
        granted: &mut Option<MessageBytes>,
        task: &mut Task<'_>,
    ) -> Result<Step, Status> {
        let refuse = |fault| match fault {
            Fault::TooLarge => bounds.too_large_inflated(),
            Fault::Malformed(why) => encoding.malformed("message", &why),
        };
        if self.inflater.is_none() {
            if self.left > 0 && self.gathered.len() < GATHERED {
                return Ok(Step::Hungry);
            }
            self.inflater = Some(Inflater::new(encoding, bounds.largest).map_err(refuse)?);
        }
        let Some(inflater) = &mut self.inflater else {
            return Ok(Step::Hungry);
        };
        let before = inflater.total();
        loop {
            if self.input.is_empty() && !inflater.has_more() {
                if self.gathered.is_empty() {
                    break;
                }
                self.input = self.gathered.split().freeze();
            }
            if let Some((bytes, clock)) = &mut self.waiting {
                match bytes.as_mut().poll(task) {
                    Poll::Ready(bytes) => *granted = Some(bytes),
                    Poll::Pending if clock.is_over(0, task) => return Err(budget_exhausted()),
                    Poll::Pending => return Ok(Step::Wait),
                }
                self.waiting = None;
                self.allowed = bounds.largest;
            }
            if inflater.total() - before >= TURN {
                return Ok(Step::Yield);
            }
            inflater.step(&mut self.input).map_err(refuse)?;
            if inflater.total() > self.allowed {
                let more = sender.rest(self.allowed, bounds.largest);
                let clock = Clock::new(bounds.patience);
                self.waiting = Some((Box::pin(sender.take(more)), clock));
            }
        }
        self.inflated.extend(inflater.pieces());
        if self.left > 0 {
            return Ok(Step::Hungry);
        }
        inflater.finish().map_err(refuse)?;
        let length = u32::try_from(inflater.total()).map_err(|_| bounds.too_large_inflated())?;
        self.inflated.extend(inflater.rest());
        let mut head = BytesMut::with_capacity(HEADER);
        head.put_u8(0);
        head.put_u32(length);
        self.inflated.push_front(head.freeze());
        Ok(Step::Whole(std::mem::take(&mut self.inflated)))
    }
}

impl<B> HttpBody for InflatedMessages<B>
where
    B: HttpBody<Data = Bytes, Error = Status>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        macro_rules! refuse {
            ($status:expr) => {{
                *this.failed = true;
                return Poll::Ready(Some(Err($status)));
            }};
        }
        loop {
            if let Some(bytes) = this.ready.pop_front() {
                if this.ready.is_empty() {
                    // It is decoded as soon as it is handed on.
                    *this.granted = None;
                }
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if let State::Compressed(message) = this.state {
                let now = this.arrived.split_to(message.left.min(this.arrived.len()));
                message.left -= now.len();
                message.gathered.extend_from_slice(&now);
                match message.advance(*this.encoding, this.bounds, this.sender, this.granted, task)
                {
                    Ok(Step::Hungry) => {}
                    Ok(Step::Wait) => return Poll::Pending,
                    Ok(Step::Yield) => {
                        task.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Ok(Step::Whole(frames)) => {
                        *this.ready = frames;
                        *this.state = State::Head;
                        continue;
                    }
                    Err(status) => refuse!(status),
                }
            } else if let Some(bytes) = plain(this.state, this.head, this.arrived, this.bounds) {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            } else if !this.arrived.is_empty() || is_whole(this.state) {
                continue;
            }
            match std::task::ready!(this.body.as_mut().poll_frame(task)) {
                None if matches!(this.state, State::Head) && this.head.is_empty() => {
                    return Poll::Ready(None);
                }
                None => refuse!(
                    ApiError::new(
                        Code::InvalidArgument,
                        "ENCODING_INVALID",
                        "the request ends within a message",
                    )
                    .into()
                ),
                Some(Err(status)) => refuse!(status),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => *this.arrived = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.failed
            || (self.ready.is_empty()
                && self.arrived.is_empty()
                && matches!(self.state, State::Head)
                && self.body.is_end_stream())
    }
}

/// Whether nothing of a compressed message has yet to arrive.
fn is_whole(state: &State) -> bool {
    matches!(state, State::Compressed(message) if message.left == 0)
}

/// Reads the head of a message, or passes on bytes of one that is not
/// compressed.
fn plain(
    state: &mut State,
    head: &mut BytesMut,
    arrived: &mut Bytes,
    bounds: &Bounds,
) -> Option<Bytes> {
    match state {
        State::Head => {
            let missing = HEADER - head.len();
            head.extend_from_slice(&arrived.split_to(missing.min(arrived.len())));
            if head.len() < HEADER {
                return None;
            }
            let whole = head.split().freeze();
            let length = whole.get(1..)?.get_u32() as usize;
            if whole.first() == Some(&1) {
                *state = State::Compressed(Box::new(Compressed::new(length, bounds.largest)));
                return None;
            }
            if length > 0 {
                *state = State::Plain(length);
            }
            Some(whole)
        }
        State::Plain(left) => {
            let now = arrived.split_to((*left).min(arrived.len()));
            *left -= now.len();
            if *left == 0 {
                *state = State::Head;
            }
            (!now.is_empty()).then_some(now)
        }
        State::Compressed(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, sync::Arc, time::Duration};

    use flate2::{Compression, write::GzEncoder};
    use http_body_util::{BodyExt as _, StreamBody};

    use super::{
        super::{super::budget::MessageBudget, MessageLayer, body::BoundedBody},
        *,
    };
    use crate::auth::Caller;

    const MIB: usize = 1 << 20;
    const LIVE: &str = "/inference.GRPCInferenceService/ServerLive";
    const GET: &str = "/tipserve.v1.CacheService/GetCache";
    const STREAM: &str = "/tipserve.v1.ClassifyService/ClassifyStream";

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).expect("compressed");
        encoder.finish().expect("an end")
    }

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        let length = (message.len() as u32).to_be_bytes();
        [&[flag][..], &length, message].concat()
    }

    /// What comes of a body that arrives in pieces of this size.
    async fn read(path: &str, budget: usize, wire: &[u8], cut: usize) -> Result<Vec<u8>, Status> {
        let layer = MessageLayer::new(32 * MIB, budget, Duration::from_secs(1));
        let bounds = layer.bounds(path);
        let sender = Sender {
            budget: Arc::new(MessageBudget::new(budget, 32 * MIB)),
            copies: 1,
            kept: None,
            caller: Caller::default(),
            peer: None,
        };
        let pieces: Vec<_> = wire
            .chunks(cut)
            .map(|piece| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(piece))))
            .collect();
        let body = StreamBody::new(futures::stream::iter(pieces));
        let body = BoundedBody::new(body, bounds, sender.clone());
        let body = InflatedMessages::new(body, Encoding::Gzip, bounds, sender);
        let collected = body.collect().await?;
        Ok(collected.to_bytes().to_vec())
    }

    #[tokio::test]
    async fn messages_of_a_stream_are_inflated_each_whether_compressed_or_not() {
        let noise: Vec<u8> = (0..200_000).map(|_| rand::random()).collect();
        let plain = [&b""[..], b"small", &noise, &[7; 3 * MIB], b""];
        let wire: Vec<u8> = plain
            .iter()
            .enumerate()
            .flat_map(|(index, message)| match index % 2 {
                0 => framed(1, &gzip(message)),
                _ => framed(0, message),
            })
            .collect();
        let expected: Vec<u8> = plain.iter().flat_map(|it| framed(0, it)).collect();
        for cut in [1, 5, 1000, 16 << 10, usize::MAX] {
            let read = read(STREAM, 64 * MIB, &wire, cut).await.expect("inflated");
            assert!(read == expected, "cut by {cut}");
        }
    }

    #[tokio::test]
    async fn a_bomb_is_refused_at_the_limit_of_its_method() {
        let bomb = framed(1, &gzip(&vec![0; 40 * MIB]));
        assert!(bomb.len() < 64 << 10, "{}", bomb.len());
        for (path, limit, bomb) in [
            (STREAM, "max_message_bytes", bomb.clone()),
            (GET, "max_control_message_bytes", bomb),
            (
                LIVE,
                "max_probe_message_bytes",
                framed(1, &gzip(&[0; 5000])),
            ),
        ] {
            let status = read(path, 64 * MIB, &bomb, 16 << 10).await.expect_err(path);
            assert_eq!(status.code(), Code::OutOfRange, "{path}: {status:?}");
            assert_eq!(ApiError::from_status(&status).reason(), "MESSAGE_TOO_LARGE");
            assert!(status.message().contains(limit), "{status:?}");
        }
    }

    #[tokio::test]
    async fn a_message_that_is_no_gzip_or_ends_early_is_refused() {
        let whole = framed(1, &gzip(&[7; 10_000]));
        for wire in [
            framed(1, b""),
            framed(1, b"plain"),
            whole[..20].to_vec(),
            vec![1, 0],
        ] {
            let status = read(STREAM, 64 * MIB, &wire, 7).await.expect_err("refused");
            let reason = ApiError::from_status(&status);
            assert_eq!(reason.reason(), "ENCODING_INVALID", "{status:?}");
        }
    }

    #[tokio::test]
    async fn what_inflates_far_waits_for_its_bytes_of_the_budget() {
        // 20 MiB of 20 kB, where one caller may have 32 MiB.
        let wire = framed(1, &gzip(&vec![0; 20 * MIB]));
        let made = read(STREAM, 64 * MIB, &wire, 16 << 10).await.expect("room");
        assert_eq!(made.len(), 20 * MIB + HEADER);
    }
}
