//! Requests over HTTP on their way into messages.

#![allow(clippy::expect_used, clippy::indexing_slicing)]

mod serving;

use bytes::Bytes;
use http::StatusCode;
use serving::{layer, send};

/// Most bytes of an error's body: a message, a field's path, what is wrong with
/// it, and the names around them.
const LARGEST_ERROR: usize = 4 << 10;

/// Requests that are refused for a text of megabytes: path, type and body.
fn refused() -> Vec<(&'static str, &'static str, String)> {
    let long = "\u{1b}x".repeat(1 << 20);
    let quoted = serde_json::to_string(&long).expect("JSON");
    let form = |part: &str| format!("--b\r\nContent-Disposition: form-data; {part}\r\n--b--\r\n");
    let form_type = "multipart/form-data; boundary=b";
    let json = "application/json";
    let infer = "/v2/models/a/infer";
    let tensor = |field: &str| {
        format!(
            r#"{{"inputs": [{{"name": {quoted}, "shape": [1], "datatype": "FP32", {field}}}]}}"#
        )
    };
    let plain = long.replace('\u{1b}', "y");
    vec![
        ("/v1/inputs:embed", json, format!("{{{quoted}: 1}}")),
        (
            "/v1/inputs:embed",
            json,
            format!(r#"{{"truncateTexts": {quoted}}}"#),
        ),
        (
            "/v1/caches",
            json,
            format!(r#"{{"spec": {{"labels": {{{quoted}: 1}}}}}}"#),
        ),
        (
            "/v1/caches",
            json,
            format!(r#"{{"spec": {{"method": {quoted}}}}}"#),
        ),
        (
            "/v1/inputs:embed",
            form_type,
            form(&format!("name=\"{plain}\"\r\n\r\n1")),
        ),
        (
            "/v1/caches/a:classify",
            form_type,
            form(&format!("name=\"topK\"\r\n\r\n{plain}")),
        ),
        (
            "/v1/embeddings",
            json,
            format!(r#"{{"input": 1, "model": {quoted}}}"#),
        ),
        (
            "/v1/embeddings",
            json,
            format!(r#"{{"input": "a", "encoding_format": {quoted}}}"#),
        ),
        (infer, json, format!(r#"{{"inputs": {quoted}}}"#)),
        (infer, json, tensor(r#""data": ["a"]"#)),
        (
            infer,
            json,
            tensor(r#""parameters": {"binary_data_size": 3}"#),
        ),
        (
            "/v2/repository/models/a/load",
            json,
            format!(r#"{{"parameters": {{{quoted}: 1.5}}}}"#),
        ),
        (
            "/v2/repository/models/a/load",
            json,
            format!(r#"{{"parameters": {quoted}}}"#),
        ),
    ]
}

#[test]
fn errors_quote_little_of_what_was_sent() {
    for (path, kind, body) in refused() {
        let answered = send(&layer(), path, kind, body.clone().into());
        let shown = String::from_utf8_lossy(&answered.body);
        let case: String = format!("{path} {body}").chars().take(120).collect();
        assert_eq!(answered.code, StatusCode::BAD_REQUEST, "{case}: {shown}");
        assert!(
            answered.body.len() <= LARGEST_ERROR,
            "{case}: {} bytes",
            answered.body.len()
        );
        assert!(
            !shown.contains("\\u001b\\u001b") && shown.len() > 20,
            "{case}: {shown}"
        );
    }
}

#[test]
fn texts_and_pictures_of_one_list_keep_their_order_in_their_own() {
    use prost::Message as _;
    use tipserve_api::v1::{EmbedRequest, input::Content};
    let body =
        r#"{"input": ["a", "data:image/png;base64,iVBO", "", "b", "data:image/png;base64,AAAA"]}"#;
    let answered = send(&layer(), "/v1/embeddings", "application/json", body.into());
    assert_eq!(answered.messages.len(), 1);
    let read = EmbedRequest::decode(answered.messages[0].clone()).expect("a message");
    assert_eq!(read.texts, ["a", "", "b"]);
    let pictures: Vec<Bytes> = read
        .inputs
        .into_iter()
        .map(|input| match input.content {
            Some(Content::EncodedImage(file)) => file,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(pictures, [&b"\x89PN"[..], b"\0\0\0"]);
}

/// The values of the one tensor that a request of the Open Inference Protocol has.
fn tensor(data: &str) -> Result<Vec<u8>, String> {
    use prost::Message as _;
    use tipserve_api::inference::ModelInferRequest;
    let body = format!(
        r#"{{"inputs": [{{"name": "a", "shape": [1], "datatype": "FP32", "data": {data}}}]}}"#
    );
    let answered = send(
        &layer(),
        "/v2/models/a/infer",
        "application/json",
        body.into(),
    );
    let [message] = answered.messages.as_slice() else {
        return Err(String::from_utf8_lossy(&answered.body).into_owned());
    };
    let read = ModelInferRequest::decode(message.clone()).expect("a message");
    assert_eq!(read.raw_input_contents.len(), 1);
    Ok(read.raw_input_contents[0].to_vec())
}

#[test]
fn numbers_of_tensors_are_the_nearest_floats() {
    // Just above the middle between 1 and the next float: rounded to 64 bits first, it
    // is the middle, and then 1.
    let above = "1.00000005960464477539062500000000001";
    let next = f32::from_bits(1.0_f32.to_bits() + 1);
    let wanted = [next, -next, 1.0, 1.5e-3, 16_777_216.0];
    let bytes: Vec<u8> = wanted.iter().flat_map(|v| v.to_le_bytes()).collect();
    let data = format!("[ [{above},\n-{above}], [[1 , 1.5e-3 ] ],[], 16777217 ]");
    assert_eq!(tensor(&data), Ok(bytes));
    for (data, told) in [
        ("[1, 1e39]", "a number is too large"),
        ("[true]", "expected numbers, or pictures in base64"),
        ("[{}]", "expected numbers, or pictures in base64"),
        ("{}", "expected a list"),
        ("7", "expected a list"),
        (
            &format!("{}1{}", "[".repeat(100), "]".repeat(100)),
            "nested too deeply",
        ),
        ("[01]", "not JSON"),
        ("[\"iVBO\"]", "its data are not of its datatype"),
        ("[\"a cat\"]", "not a picture's file in base64"),
    ] {
        let refused = tensor(data).expect_err(data);
        assert!(refused.contains(told), "{data}: {refused}");
    }
}

/// The values of an embedding.
fn embedding(list: &str) -> Vec<f32> {
    use prost::Message as _;
    use tipserve_api::v1::{EmbedRequest, input::Content};
    let body = format!(r#"{{"inputs": [{{"embedding": {{"values": {list}}}}}]}}"#);
    let answered = send(
        &layer(),
        "/v1/inputs:embed",
        "application/json",
        body.into(),
    );
    let read = EmbedRequest::decode(answered.messages[0].clone()).expect("a message");
    match &read.inputs[0].content {
        Some(Content::Embedding(embedding)) => embedding.values.clone(),
        other => panic!("{other:?}"),
    }
}

/// With a text among them they are read one by one: not rounded to 64 bits first,
/// which would change those beside the middle between two floats.
#[test]
fn numbers_beside_texts_are_the_nearest_as_well() {
    let above = "1.00000005960464477539062500000000001";
    let next = f32::from_bits(1.0_f32.to_bits() + 1);
    assert_eq!(above.parse::<f64>().expect("a float") as f32, 1.0);
    assert_eq!(embedding(&format!("[{above}]")), [next]);
    let read = embedding(&format!("[{above},-{above},\"{above}\",\"Infinity\"]"));
    assert_eq!(read, [next, -next, next, f32::INFINITY]);
    let whole = (1_u64 << 60) + (1 << 36) + 1;
    let read = embedding(&format!("[{whole},-{whole},\"1\"]"));
    assert_eq!(read, [whole as f32, -(whole as f32), 1.0]);
    assert_ne!(whole as f32, whole as f64 as f32);
}
