//! The memory that requests take on their way into messages. One test in a program
//! of its own: it counts what all threads allocate.

#![allow(clippy::expect_used, clippy::indexing_slicing)]

#[expect(dead_code, reason = "the answers, which other tests look at")]
mod serving;

use bytes::Bytes;
use peak_alloc::PeakAlloc;
use serving::{layer, send};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What decoding a message may take for each of its bytes, too.
const FACTOR: usize = tipserve_api::decode_cost::FACTOR;
/// Threads, buffers, an error.
const BESIDES: usize = 1 << 20;

/// A list of as many elements as 8 MiB hold.
fn list(before: &str, element: &str, after: &str) -> String {
    let count = (8 << 20) / (element.len() + 1);
    format!("{before}{}{after}", vec![element; count].join(","))
}

/// A specification as a field of a form, and a picture.
fn form(spec: &str) -> String {
    let part = |named: &str, content: &str| {
        format!("--b\r\nContent-Disposition: form-data; {named}\r\n\r\n{content}\r\n")
    };
    let spec = part(r#"name="spec""#, spec);
    let picture = part(r#"name="cat"; filename="a.png""#, "a picture");
    format!("{spec}{picture}--b--\r\n")
}

/// An array of rows of one float.
fn narrow_array() -> Bytes {
    let rows = 1 << 20;
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, 1), }}\n");
    let length = u16::try_from(header.len()).expect("short").to_le_bytes();
    let floats = vec![0; 4 * rows];
    [&b"\x93NUMPY\x01\0"[..], &length, header.as_bytes(), &floats]
        .concat()
        .into()
}

#[test]
fn many_small_elements_take_little_memory_before_they_are_checked() {
    let layer = layer();
    let json = "application/json";
    let tensor = |datatype: &str| {
        format!(r#"{{"inputs":[{{"name":"a","shape":[1],"datatype":"{datatype}","data":["#)
    };
    let classes = list(r#"{"classes":["#, "{}", "]}");
    let cases: [(&str, &str, Bytes); 8] = [
        (
            "/v1/embeddings",
            json,
            list(r#"{"input":["#, r#""""#, "]}").into(),
        ),
        (
            "/v1/inputs:embed",
            json,
            list(r#"{"texts":["#, r#""""#, "]}").into(),
        ),
        (
            "/v1/inputs:embed",
            json,
            list(r#"{"inputs":["#, "{}", "]}").into(),
        ),
        (
            "/v1/inputs:embed",
            json,
            list(r#"{"inputs":[{"embedding":{"values":["#, "1", "]}}]}").into(),
        ),
        (
            "/v2/models/a/infer",
            json,
            list(&tensor("FP32"), "1", "]}]}").into(),
        ),
        (
            "/v2/models/a/infer",
            json,
            list(&tensor("BYTES"), r#""""#, "]}]}").into(),
        ),
        (
            "/v1/caches",
            "multipart/form-data; boundary=b",
            form(&classes).into(),
        ),
        (
            "/v1/caches/a:classifyStream",
            "application/x-npy",
            narrow_array(),
        ),
    ];
    let mut over = Vec::new();
    for (path, kind, body) in cases {
        let length = body.len();
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let answered = send(&layer, path, kind, body);
        let taken = MEMORY.peak_usage().saturating_sub(before);
        println!(
            "{path} {kind}: {:.1} bytes for each of a body",
            taken as f64 / length as f64
        );
        if taken > FACTOR * length + BESIDES {
            over.push(format!("{path} {kind}: {taken} for {length}"));
        }
        // The narrow rows are refused, the class of the form's picture is none of those given.
        let is_read = !matches!(kind, "application/x-npy") && path != "/v1/caches";
        assert_eq!(!answered.messages.is_empty(), is_read, "{path} {kind}");
    }
    assert!(over.is_empty(), "{over:#?}");
}
