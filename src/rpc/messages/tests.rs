use std::{collections::HashMap, pin::Pin};

use futures::StreamExt as _;
use http_body::Frame;
use prost::Message as _;
use prost_types::{
    DescriptorProto, FileDescriptorSet, MethodDescriptorProto, field_descriptor_proto::Type,
};

use tonic_types::StatusExt as _;

use super::{
    framing::{Framing, HEADER},
    *,
};
use tipserve_api::DESCRIPTORS;

const MIB: usize = 1 << 20;

fn layer() -> MessageLayer {
    MessageLayer::new(32 * MIB, 64 * MIB, Duration::from_secs(60))
}

/// Short, for tests that wait until it is over.
const PATIENCE: Duration = Duration::from_millis(500);

fn impatient() -> MessageLayer {
    MessageLayer::new(32 * MIB, 64 * MIB, PATIENCE)
}

/// Every method of every service: its path and descriptor, and whether its
/// request can carry a picture, an embedding or a file.
fn methods() -> Vec<(String, MethodDescriptorProto, bool)> {
    let sets = [
        DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let mut methods = Vec::new();
    for set in sets {
        let set = FileDescriptorSet::decode(set).expect("descriptors");
        let mut messages = HashMap::new();
        for file in &set.file {
            for message in &file.message_type {
                collect(&mut messages, &format!(".{}", file.package()), message);
            }
        }
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    let bulky = carries_content(&messages, method.input_type());
                    methods.push((path, method.clone(), bulky));
                }
            }
        }
    }
    methods
}

fn collect<'a>(
    messages: &mut HashMap<String, &'a DescriptorProto>,
    prefix: &str,
    message: &'a DescriptorProto,
) {
    let name = format!("{prefix}.{}", message.name());
    for nested in &message.nested_type {
        collect(messages, &name, nested);
    }
    messages.insert(name, message);
}

fn carries_content(messages: &HashMap<String, &DescriptorProto>, name: &str) -> bool {
    let Some(message) = messages.get(name) else {
        return false;
    };
    message.field.iter().any(|field| match field.r#type() {
        Type::Bytes | Type::Float => true,
        Type::Message => carries_content(messages, field.type_name()),
        _ => false,
    })
}

#[test]
fn every_method_has_a_limit_that_fits_what_it_carries() {
    let methods = methods();
    assert!(methods.len() > 45, "{}", methods.len());
    for (path, method, bulky) in methods {
        let bounds = layer().bounds(&path);
        assert_eq!(bounds.streams, method.client_streaming(), "{path}");
        let rule = methods::find(&path).expect("a method of the table");
        // Offered to nobody, whatever they would carry.
        let refused = [
            "CudaSharedMemoryRegister",
            "RepositoryModelLoad",
            "RepositoryModelUnload",
        ];
        let expected = match rule.access {
            Access::Open => 4 << 10,
            _ if bulky && !refused.contains(&method.name()) => 32 * MIB,
            Access::Needs(_) => 64 << 10,
        };
        assert_eq!(bounds.largest, expected, "{path}");
    }
    // What is no method at all is refused behind this layer; until then:
    assert_eq!(layer().bounds("/nobody.knows/It").largest, 64 << 10);
}

#[test]
fn the_servers_own_limit_bounds_all_methods() {
    let small = MessageLayer::new(2048, MIB, Duration::from_secs(1));
    for (path, ..) in methods() {
        let bounds = small.bounds(&path);
        assert_eq!(
            (bounds.limit, bounds.largest),
            ("max_message_bytes", 2048),
            "{path}"
        );
    }
}

fn message(length: usize) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend(std::iter::repeat_n(7, length));
    bytes
}

#[test]
fn messages_are_found_however_they_are_cut() {
    let bytes = [message(0), message(10), message(3)].concat();
    for piece in 1..=bytes.len() {
        let mut framing = Framing::default();
        for piece in bytes.chunks(piece) {
            framing.pass(piece, 10).expect("small enough");
        }
        assert_eq!(
            (framing.messages, framing.is_within()),
            (3, false),
            "{piece}"
        );
        let mut framing = Framing::default();
        let refused = bytes
            .chunks(piece)
            .find_map(|piece| framing.pass(piece, 9).err());
        assert_eq!(refused, Some(10), "{piece}");
    }
}

/// A body that gives what is sent into the channel.
fn body(
    path: &str,
    layer: &MessageLayer,
) -> (
    futures::channel::mpsc::UnboundedSender<Vec<u8>>,
    impl HttpBody<Data = Bytes, Error = Status> + use<>,
) {
    let (frames_in, frames) = futures::channel::mpsc::unbounded::<Vec<u8>>();
    let frames = frames.map(|bytes| Ok::<_, Status>(Frame::data(Bytes::from(bytes))));
    let sender = Sender {
        budget: Arc::clone(&layer.budget),
        copies: 1,
        kept: None,
        caller: Caller::default(),
        peer: None,
    };
    let body = BoundedBody::new(Frames(frames), layer.bounds(path), sender);
    (frames_in, body)
}

pin_project_lite::pin_project! {
    struct Frames<S> {
        #[pin]
        frames: S,
    }
}

#[allow(non_snake_case)]
fn Frames<S>(frames: S) -> Frames<S> {
    Frames { frames }
}

impl<S: futures::Stream<Item = Result<Frame<Bytes>, Status>>> HttpBody for Frames<S> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.project().frames.poll_next(task)
    }
}

async fn next(
    body: &mut Pin<Box<impl HttpBody<Data = Bytes, Error = Status>>>,
) -> Result<usize, Status> {
    let frame = std::future::poll_fn(|task| body.as_mut().poll_frame(task)).await;
    frame.map_or(Ok(0), |frame| {
        frame.map(|frame| frame.data_ref().map_or(0, Bytes::len))
    })
}

const LIVE: &str = "/inference.GRPCInferenceService/ServerLive";
const EMBED: &str = "/tipserve.v1.ClassifyService/Embed";
const STREAM: &str = "/tipserve.v1.ClassifyService/ClassifyStream";

#[tokio::test]
async fn a_message_over_its_methods_limit_is_refused_at_its_header() {
    let (sender, body) = body(LIVE, &layer());
    let mut body = Box::pin(body);
    sender
        .unbounded_send(message(31 * MIB)[..5].to_vec())
        .expect("sent");
    let status = next(&mut body).await.expect_err("refused");
    assert_eq!(status.code(), Code::OutOfRange);
    assert!(
        status.message().contains("max_probe_message_bytes = 4096"),
        "{status}"
    );
    let problem = ApiError::from_status(&status);
    assert_eq!(problem.reason(), "MESSAGE_TOO_LARGE");
    let details = Status::from(problem).get_error_details();
    let info = details.error_info().expect("an ErrorInfo");
    assert_eq!(info.metadata["limit"], "max_probe_message_bytes");
}

#[tokio::test]
async fn a_message_must_arrive_in_time_and_a_stream_must_begin() {
    for path in [LIVE, EMBED, STREAM] {
        let (sender, body) = body(path, &impatient());
        let mut body = Box::pin(body);
        let status = next(&mut body).await.expect_err("silent");
        assert_eq!(status.code(), Code::DeadlineExceeded, "{path}");
        assert_eq!(ApiError::from_status(&status).reason(), "MESSAGE_TIMEOUT");
        drop(sender);
    }
    let probes = layer().bounds(LIVE).patience;
    assert!(
        probes <= Duration::from_secs(5),
        "without a token it ends in seconds"
    );
}

#[tokio::test]
async fn a_slow_network_is_served_and_a_trickle_is_not() {
    let length = 512 << 10;
    for (every, bytes, served) in [(50, 32 << 10, true), (200, 16, false)] {
        let (sender, body) = body(EMBED, &impatient());
        let mut body = Box::pin(body);
        let whole = message(length);
        let sending = tokio::spawn(async move {
            for piece in whole.chunks(bytes) {
                tokio::time::sleep(Duration::from_millis(every)).await;
                if sender.unbounded_send(piece.to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut left = whole_length(length);
        let result = loop {
            match next(&mut body).await {
                Ok(bytes) => left -= bytes,
                Err(status) => break Err(status.code()),
            }
            if left == 0 {
                break Ok(());
            }
        };
        assert_eq!(
            result.is_ok(),
            served,
            "{bytes} bytes every {every} ms: {result:?}"
        );
        sending.abort();
    }
}

const fn whole_length(length: usize) -> usize {
    length + HEADER
}

#[tokio::test]
async fn a_stream_may_be_silent_between_its_messages_but_not_within_one() {
    let (sender, body) = body(STREAM, &impatient());
    let mut body = Box::pin(body);
    sender.unbounded_send(message(10)).expect("sent");
    assert_eq!(next(&mut body).await.expect("a message"), 15);
    let silent = tokio::time::timeout(3 * PATIENCE, next(&mut body)).await;
    assert!(silent.is_err(), "ended");
    sender
        .unbounded_send(message(10)[..7].to_vec())
        .expect("sent");
    assert_eq!(next(&mut body).await.expect("a part"), 7);
    let status = next(&mut body).await.expect_err("unfinished");
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn unfinished_messages_wait_for_their_bytes_and_are_refused_in_the_end() {
    let layer = MessageLayer::new(MIB, 2 * MIB, 3 * PATIENCE);
    let begin = |length: usize| {
        let (sender, body) = body(EMBED, &layer);
        sender
            .unbounded_send(message(length)[..10].to_vec())
            .expect("sent");
        (sender, Box::pin(body))
    };
    // One caller may have half.
    let (first_sender, mut first) = begin(MIB);
    assert_eq!(next(&mut first).await.expect("its bytes"), 10);
    let (_sender, mut second) = begin(1024);
    let waiting = tokio::time::timeout(PATIENCE, next(&mut second)).await;
    assert!(waiting.is_err(), "backpressure");
    // The rest of the first arrives, and it is read on.
    first_sender
        .unbounded_send(message(MIB)[10..].to_vec())
        .expect("sent");
    next(&mut first).await.expect("the rest");
    drop(first_sender);
    assert_eq!(next(&mut first).await.expect("the end"), 0);
    assert_eq!(next(&mut second).await.expect("now"), 10);

    let (_sender, mut third) = begin(MIB);
    let status = next(&mut third).await.expect_err("no room");
    assert_eq!(ApiError::from_status(&status).reason(), "QUEUE_FULL");
}
