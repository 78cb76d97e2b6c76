//! How long a form may take, and how much of it is held.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, future::BoxFuture, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use tonic::{Code, Status};

use super::{Form, MOST_KEPT, Part};
use crate::{arrival::Arrival, bounds::Bounds};

const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(200);
/// Together the pauses are longer than the patience.
const PAUSES: usize = 7;

/// Bounds of 32 MiB a message, which remember the most that was reserved.
#[derive(Default)]
struct Counted {
    most: AtomicUsize,
}

impl Bounds for Counted {
    fn largest(&self) -> usize {
        32 << 20
    }

    fn patience(&self, _: usize) -> Duration {
        PATIENCE
    }

    fn reserve(&self, bytes: usize) -> BoxFuture<'static, Box<dyn Send + Sync>> {
        self.most.fetch_max(bytes, Ordering::Relaxed);
        Box::pin(async { Box::new(()) as Box<dyn Send + Sync> })
    }

    fn too_large(&self, bytes: usize) -> Status {
        Status::resource_exhausted(format!("{bytes} bytes"))
    }

    fn too_slow(&self, _: usize) -> Status {
        Status::deadline_exceeded("too slow")
    }

    fn budget_exhausted(&self) -> Status {
        Status::resource_exhausted("no bytes")
    }
}

/// A form of these pieces, with a pause before each.
fn form(
    bounds: &Arc<Counted>,
    pause: Duration,
    pieces: impl Iterator<Item = Vec<u8>> + Send + 'static,
) -> Form {
    let frames = stream::iter(pieces).then(move |piece| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, Infallible>(Frame::data(Bytes::from(piece)))
    });
    let arrival = Arrival::new(StreamBody::new(frames), Arc::clone(bounds) as Arc<_>);
    Form::new(arrival, "x")
}

/// The parts of a form, and the error that ended it.
async fn read(mut form: Form) -> Result<Vec<Part>, (Vec<Part>, Status)> {
    let mut parts = Vec::new();
    loop {
        match form.next(false).await {
            Ok(Some(part)) => parts.push(part),
            Ok(None) => return Ok(parts),
            Err(status) => return Err((parts, status)),
        }
    }
}

const PART: &str = "content-disposition: form-data; name=\"a\"; filename=\"b\"\r\n\r\n";

#[tokio::test]
async fn each_part_has_a_messages_time_to_arrive() {
    let first = [b"--x\r\n".to_vec()];
    let parts = (0..PAUSES).map(|_| format!("{PART}data\r\n--x\r\n").into_bytes());
    let last = [format!("{PART}data\r\n--x--\r\n").into_bytes()];
    let pieces = first.into_iter().chain(parts).chain(last);
    let parts = read(form(&Arc::default(), PAUSE, pieces)).await;
    let parts = parts.expect("a form that comes slowly");
    assert_eq!(parts.len(), PAUSES + 1);
    assert!(parts.iter().all(|part| part.data == "data"));
}

#[tokio::test]
async fn one_part_has_no_longer_however_it_trickles() {
    let first = [format!("--x\r\n{PART}").into_bytes()];
    let pieces = first.into_iter().chain(std::iter::repeat(b"d".to_vec()));
    let (parts, status) = read(form(&Arc::default(), PAUSE, pieces))
        .await
        .expect_err("without an end");
    assert!(parts.is_empty());
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn what_the_parser_holds_is_reserved_and_bounded() {
    for start in [
        "",
        "--x\r\nx-a: ",
        "--x\r\ncontent-disposition: form-data; name=\"",
    ] {
        let bounds = Arc::<Counted>::default();
        let read_on = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&read_on);
        let first = [start.as_bytes().to_vec()];
        let pieces = first.into_iter().chain(std::iter::repeat_with(move || {
            counted.fetch_add(1 << 15, Ordering::Relaxed);
            vec![b'a'; 1 << 15]
        }));
        let (parts, status) = read(form(&bounds, Duration::ZERO, pieces))
            .await
            .expect_err("without an end");
        assert!(parts.is_empty());
        assert_eq!(status.code(), Code::InvalidArgument, "{start:?}: {status}");
        let read_on = read_on.load(Ordering::Relaxed);
        assert!(read_on <= MOST_KEPT + (1 << 16), "{start:?}: {read_on}");
        let reserved = bounds.most.load(Ordering::Relaxed);
        assert!(start.is_empty() || reserved == MOST_KEPT, "{start:?}");
    }
}

#[tokio::test]
async fn no_more_is_read_than_parts_need() {
    let read_on = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&read_on);
    let many = format!("{PART}\r\n--x\r\n").repeat(1000);
    let first = [b"--x\r\n".to_vec()];
    let pieces = first.into_iter().chain(std::iter::repeat_with(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        many.clone().into_bytes()
    }));
    let mut form = form(&Arc::default(), Duration::ZERO, pieces);
    for number in 1..=2500 {
        let part = form.next(false).await.expect("a form").expect("a part");
        assert!(part.data.is_empty());
        let read_on = read_on.load(Ordering::Relaxed);
        assert!(read_on <= number / 1000 + 1, "part {number}: {read_on}");
    }
}
