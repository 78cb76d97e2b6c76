//! Any bytes as the files of a cache: its records, an exported version, and a
//! manifest with tensors whose seals hold (a fuzzer cannot make a SHA-256
//! match, so that what comes after it would never be reached).

#![no_main]

use libfuzzer_sys::fuzz_target;
use tipserve::catalog::fuzzing::check;
use tipserve_store::fuzzing;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else {
        return;
    };
    match kind % 3 {
        0 => fuzzing::records(rest),
        1 => {
            if let Ok(imported) = fuzzing::exported(rest) {
                check(&imported);
            }
        }
        // The manifest's length, the manifest, the tensors file.
        _ => {
            let Some((length, rest)) = rest.split_first_chunk::<2>() else {
                return;
            };
            let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
            let (manifest, tensors) = rest.split_at(length);
            if let Some(imported) = fuzzing::version(manifest, tensors) {
                check(&imported);
            }
        }
    }
});
