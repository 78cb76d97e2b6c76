//! A bound on answers of a protocol that has no pages.

use prost::Message;
use tonic::Code;

use crate::rpc::error::ApiError;

/// Bytes that an answer may take: gRPC's clients take 4 MiB by default.
const MAX_BYTES: usize = 4_000_000;

/// The size of an answer as its rows are added.
pub struct AnswerSize {
    bytes: usize,
    instead: &'static str,
}

impl AnswerSize {
    /// An answer without rows. `instead` says what to do if they are too
    /// many.
    pub fn new(instead: &'static str) -> AnswerSize {
        AnswerSize { bytes: 0, instead }
    }

    /// Counts a row.
    ///
    /// # Errors
    /// INDEX_TOO_LARGE, once there are too many.
    pub fn add(&mut self, row: &impl Message) -> Result<(), ApiError> {
        // A tag and a length of at most three bytes go with each row.
        self.bytes += row.encoded_len() + 4;
        if self.bytes <= MAX_BYTES {
            return Ok(());
        }
        let message = format!(
            "the answer takes more than {MAX_BYTES} bytes and this protocol has no pages: {}",
            self.instead
        );
        Err(
            ApiError::new(Code::ResourceExhausted, "INDEX_TOO_LARGE", message)
                .fact("maximum", MAX_BYTES),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_under_what_clients_take() {
        let mut size = AnswerSize::new("ask for one");
        let row = "x".repeat(1000);
        let rows = (0..5000).take_while(|_| size.add(&row).is_ok()).count();
        assert!((3900..4000).contains(&rows), "{rows} rows of a kilobyte");
        let error = size.add(&row).expect_err("refused");
        assert_eq!(error.reason(), "INDEX_TOO_LARGE");
        assert!(error.message().ends_with("ask for one"), "{error:?}");
    }
}
