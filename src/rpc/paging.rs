//! Pages of lists (AIP-158) and field masks (AIP-157).

use prost_types::FieldMask;

use super::request::RequestError;

/// Entries in a page: if the client does not say, and at most.
const CACHES: (usize, usize) = (50, 1000);
/// The same for examples, which are small.
const EXAMPLES: (usize, usize) = (1000, 10_000);

/// Bytes from which a page of a list ends: well under what gRPC clients take by
/// default (4 MiB).
pub const PAGE_BYTES: usize = 2 << 20;

/// The size of a page.
///
/// # Errors
/// A negative size.
pub fn size(asked: i32) -> Result<usize, RequestError> {
    within(asked, CACHES)
}

/// The size of a page of examples.
///
/// # Errors
/// A negative size.
pub fn size_of_examples(asked: i32) -> Result<usize, RequestError> {
    within(asked, EXAMPLES)
}

fn within(asked: i32, (default, most): (usize, usize)) -> Result<usize, RequestError> {
    match usize::try_from(asked) {
        Ok(0) => Ok(default),
        Ok(n) => Ok(n.min(most)),
        Err(_) => Err(RequestError::invalid(
            "page_size",
            format!("{asked} is negative"),
        )),
    }
}

/// Clears the fields of a message that the mask does not name.
///
/// # Errors
/// A path that is not a field.
pub fn mask<T: Masked>(message: &mut T, mask: Option<&FieldMask>) -> Result<(), RequestError> {
    let Some(mask) = mask.filter(|mask| !mask.paths.is_empty()) else {
        return Ok(());
    };
    let wanted = |field: &str| mask.paths.iter().any(|path| path == field || path == "*");
    for path in &mask.paths {
        if path != "*" && !T::FIELDS.contains(&path.as_str()) {
            return Err(RequestError::invalid(
                "read_mask",
                format!("{path:?} is not one of {}", T::FIELDS.join(", ")),
            ));
        }
    }
    for field in T::FIELDS {
        if !wanted(field) {
            message.clear_field(field);
        }
    }
    Ok(())
}

/// A message whose top-level fields can be cleared by name.
pub trait Masked {
    /// The names of the fields that a mask may have.
    const FIELDS: &'static [&'static str];
    /// Sets a field to its default.
    fn clear_field(&mut self, field: &str);
}

macro_rules! masked {
    ($message:ty: $($field:ident),*) => {
        impl Masked for $message {
            const FIELDS: &'static [&'static str] = &[$(stringify!($field)),*];
            fn clear_field(&mut self, field: &str) {
                match field {
                    $(stringify!($field) => self.$field = Default::default(),)*
                    _ => {}
                }
            }
        }
    };
}

masked!(tipserve_api::v1::Cache: name, create_time, latest, aliases, version_count, etag);
masked!(tipserve_api::v1::Version: name, version, create_time, parent, description, labels,
    classes, width, key_count, views, bundle_fingerprint, head, size_bytes, fine_tune, created_by,
    bundle_name, source, class_count, exif_orientation, picture_count, encoder_dtype,
    unknown_count, multi_label, part_weights);

#[cfg(test)]
mod tests {
    use super::Masked;
    use prost::Message as _;
    use prost_types::FileDescriptorSet;
    use tipserve_api::v1::{Cache, Version};

    fn fields_of(message: &str) -> Vec<String> {
        let files = FileDescriptorSet::decode(tipserve_api::DESCRIPTORS).expect("descriptors");
        files
            .file
            .iter()
            .filter(|file| file.package() == "tipserve.v1")
            .flat_map(|file| &file.message_type)
            .filter(|found| found.name() == message)
            .flat_map(|found| &found.field)
            .map(|field| field.name().to_owned())
            .collect()
    }

    #[test]
    fn a_read_mask_knows_every_field() {
        assert_eq!(Cache::FIELDS, fields_of("Cache"));
        assert_eq!(Version::FIELDS, fields_of("Version"));
    }
}
