//! Numbers in JSON: ours are read as the standard library reads them, to the last
//! bit, and what is written reads back to the same bits.

#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use tipserve_http::fuzzing::number;

/// Longer ones are no different numbers, and take longer.
const MOST: usize = 64;

fuzz_target!(|bytes: &[u8]| -> Corpus {
    if bytes.len() > MOST {
        return Corpus::Reject;
    }
    number(bytes);
    Corpus::Keep
});
