//! Changes that may be repeated (AIP-155): a request with a `request_id` is
//! carried out once, however often it arrives.

use std::collections::HashMap;

use prost::Message;
use sha2::{Digest as _, Sha256};

use super::request::RequestError;
use tipserve_api::v1 as pb;
use tipserve_store::{MAX_REQUEST_ID_BYTES, RequestKey};

/// A request, or the specification that begins one, with a `request_id`.
pub trait Repeatable: Message {
    /// The path of its `request_id`, for errors.
    const FIELD: &'static str;

    /// The field `request_id` of the message.
    fn request_id(&mut self) -> &mut String;

    /// Its map, if it has one: maps have no order on the wire.
    fn labels(&mut self) -> Option<&mut HashMap<String, String>> {
        None
    }
}

impl Repeatable for pb::CacheSpec {
    const FIELD: &'static str = "spec.request_id";

    fn request_id(&mut self) -> &mut String {
        &mut self.request_id
    }

    fn labels(&mut self) -> Option<&mut HashMap<String, String>> {
        Some(&mut self.labels)
    }
}

impl Repeatable for pb::AddExamplesSpec {
    const FIELD: &'static str = "spec.request_id";

    fn request_id(&mut self) -> &mut String {
        &mut self.request_id
    }

    fn labels(&mut self) -> Option<&mut HashMap<String, String>> {
        Some(&mut self.labels)
    }
}

impl Repeatable for pb::ImportSpec {
    const FIELD: &'static str = "spec.request_id";

    fn request_id(&mut self) -> &mut String {
        &mut self.request_id
    }
}

impl Repeatable for pb::FineTuneRequest {
    const FIELD: &'static str = "request_id";

    fn request_id(&mut self) -> &mut String {
        &mut self.request_id
    }
}

/// The key that a request is known by, if it names itself. Its digest is over
/// all that the request says but its id; of `CreateCache` and `AddExamples` that
/// is the specification, not the examples.
///
/// # Errors
/// An id that is too long or has characters other than visible ASCII.
pub fn request_key<M: Repeatable>(request: &mut M) -> Result<Option<RequestKey>, RequestError> {
    let id = std::mem::take(request.request_id());
    if id.is_empty() {
        return Ok(None);
    }
    let limit = "max_request_id_bytes";
    RequestError::check(M::FIELD, limit, MAX_REQUEST_ID_BYTES, id.len())?;
    if !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        let problem = "it may have visible ASCII characters only, without spaces";
        return Err(RequestError::invalid(M::FIELD, problem));
    }
    let labels = request.labels().map(std::mem::take).unwrap_or_default();
    let mut hasher = Sha256::new();
    hasher.update(request.encode_to_vec());
    let mut sorted: Vec<_> = labels.iter().collect();
    sorted.sort_unstable();
    for text in sorted.into_iter().flat_map(|(key, value)| [key, value]) {
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text);
    }
    if let Some(place) = request.labels() {
        *place = labels;
    }
    let digest = hasher.finalize();
    Ok(Some(RequestKey {
        id,
        digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(labels: &[(&str, &str)]) -> pb::CacheSpec {
        pb::CacheSpec {
            cache_id: "pets".to_owned(),
            request_id: "7d3c".to_owned(),
            labels: labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..pb::CacheSpec::default()
        }
    }

    fn digest(mut spec: pb::CacheSpec) -> String {
        let labels = spec.labels.clone();
        let key = request_key(&mut spec).expect("valid").expect("an id");
        assert_eq!((key.id.as_str(), spec.labels), ("7d3c", labels));
        key.digest
    }

    #[test]
    fn equal_requests_have_equal_digests_whatever_the_order_of_their_labels() {
        let labels: Vec<(String, String)> = (0..20)
            .map(|i| (format!("key-{i}"), format!("value-{i}")))
            .collect();
        let mut pairs: Vec<(&str, &str)> = labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let first = digest(spec(&pairs));
        pairs.reverse();
        assert_eq!(digest(spec(&pairs)), first);
        assert_ne!(digest(spec(&[("a", "bc")])), digest(spec(&[("ab", "c")])));
        let mut other = spec(&[]);
        other.seed = 1;
        assert_ne!(digest(other), digest(spec(&[])));
    }

    #[test]
    fn a_request_without_an_id_has_no_key_and_odd_ids_are_refused() {
        let mut spec = spec(&[]);
        for (id, reason) in [
            ("a b", "visible ASCII"),
            ("\u{1b}[2J", "visible ASCII"),
            (&"x".repeat(129), "max_request_id_bytes"),
        ] {
            spec.request_id = id.to_owned();
            let error = request_key(&mut spec).expect_err("refused");
            assert!(error.to_string().contains(reason), "{error}");
        }
        spec.request_id = String::new();
        assert_eq!(request_key(&mut spec).expect("valid"), None);
    }
}
