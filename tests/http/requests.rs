//! Requests over HTTP on their way into messages.

mod serving;

use bytes::Bytes;
use http::StatusCode;
use serving::{layer, send};

/// Most bytes of an error's body: a message, a field's path, what is wrong with
/// it, and the names around them.
const LARGEST_ERROR: usize = 4 << 10;

#[test]
fn errors_quote_little_of_what_was_sent() {
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
    for (path, kind, body) in [
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
    ] {
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
