//! Any text as the JSON of a request: an error, or a message that another reader
//! reads as well, and that is written and read again to the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tipserve_http::fuzzing::request;

fuzz_target!(|bytes: &[u8]| request(bytes));
