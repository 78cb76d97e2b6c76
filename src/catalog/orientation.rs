//! EXIF orientation as versions record it, and as pictures are decoded.

use tipserve_clip::ExifOrientation as Decoded;
use tipserve_store::ExifOrientation as Recorded;

/// How the pictures of a version are decoded.
pub fn decoded(recorded: Recorded) -> Decoded {
    match recorded {
        Recorded::Apply => Decoded::Apply,
        Recorded::Ignore => Decoded::Ignore,
    }
}

/// What a version records of how its pictures were decoded.
pub fn recorded(decoded: Decoded) -> Recorded {
    match decoded {
        Decoded::Apply => Recorded::Apply,
        Decoded::Ignore => Recorded::Ignore,
    }
}
