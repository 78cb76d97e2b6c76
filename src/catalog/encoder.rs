//! Which features may be compared: those of one bundle, from encoders whose
//! number formats agree.

use super::CatalogError;
use tipserve_clip::{Precision, int8::MOST_NOISE};
use tipserve_store::{Details, EncoderRecord, Manifest};

/// How a bundle's encoder embeds pictures on this server.
#[derive(Clone, Debug)]
pub struct ServedEncoder {
    /// The number format that it computes in.
    pub precision: Precision,
    /// How far its features are from float ones, if it computes in 8 bits
    /// ([`tipserve_clip::Agreement::noise`]).
    pub noise: Option<f64>,
}

impl ServedEncoder {
    /// Whether pictures embedded here can be compared with the features of a
    /// version of the same bundle.
    ///
    /// # Errors
    /// [`CatalogError::WrongDtype`], if one side is 8-bit, the other float, and
    /// they differ too much.
    pub fn check(&self, manifest: &Manifest) -> Result<(), CatalogError> {
        self.check_details(&manifest.details, || manifest.resource_name())
    }

    /// The same of a version that need not have a name yet; `called` says what
    /// an error calls it.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn check_details(
        &self,
        details: &Details,
        called: impl FnOnce() -> String,
    ) -> Result<(), CatalogError> {
        let record = details.encoder.as_ref();
        match self.noise_between(record) {
            Some(noise) if noise > MOST_NOISE => Err(CatalogError::WrongDtype {
                version: called(),
                made_with: match record {
                    None => "a float format".to_owned(),
                    // Of a version without pictures.
                    Some(record) if record.dtype.is_empty() => Precision::Int8.to_string(),
                    Some(record) => record.dtype.clone(),
                },
                served: self.precision.name(),
                noise,
            }),
            _ => Ok(()),
        }
    }

    /// The noise between a version's features and this encoder's; none if both
    /// are float, or both 8-bit. Without a record they are float: the version
    /// is of an older server, or a float one made it without pictures.
    fn noise_between(&self, made: Option<&EncoderRecord>) -> Option<f64> {
        let theirs = made.and_then(|record| record.noise);
        match (self.noise, theirs) {
            (Some(noise), None) | (None, Some(noise)) => Some(noise),
            (Some(_), Some(_)) | (None, None) => None,
        }
    }

    /// The record of a version made here of pictures and, if there is a
    /// base, of its features.
    pub fn record(&self, base: Option<&EncoderRecord>) -> EncoderRecord {
        let own = self.precision.name();
        let theirs = base.map_or("", |base| &base.dtype).split(", ");
        let mut dtypes: Vec<&str> = theirs.filter(|dtype| !dtype.is_empty()).collect();
        if !dtypes.contains(&own) {
            dtypes.push(own);
        }
        let noise = match (self.noise, base.and_then(|record| record.noise)) {
            (Some(own), Some(theirs)) => Some(own.max(theirs)),
            (own, theirs) => own.or(theirs),
        };
        EncoderRecord {
            dtype: dtypes.join(", "),
            noise,
        }
    }

    /// The record of a version made here without pictures, of texts or
    /// embeddings alone; its base's, if there is one.
    ///
    /// Embeddings given to a server are taken for what it would compute, as
    /// texts are embedded for it: where that is 8-bit, the record says how far
    /// it is from float. Its format stays empty, as no picture was embedded.
    pub fn record_without_pictures(
        &self,
        base: Option<Option<&EncoderRecord>>,
    ) -> Option<EncoderRecord> {
        match base {
            Some(base) => base.cloned(),
            None => self.noise.map(|noise| EncoderRecord {
                dtype: String::new(),
                noise: Some(noise),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(precision: Precision, noise: Option<f64>) -> ServedEncoder {
        ServedEncoder { precision, noise }
    }

    fn made(dtype: &str, noise: Option<f64>) -> Option<EncoderRecord> {
        Some(EncoderRecord {
            dtype: dtype.into(),
            noise,
        })
    }

    #[test]
    fn float_formats_meet_and_so_do_features_in_8_bits() {
        let float = served(Precision::Bfloat16, None);
        let int8 = served(Precision::Int8, Some(9.0));
        assert_eq!(float.noise_between(made("float32", None).as_ref()), None);
        assert_eq!(float.noise_between(None), None);
        assert_eq!(int8.noise_between(made("int8", Some(9.0)).as_ref()), None);
    }

    #[test]
    fn between_float_and_8_bits_lies_the_8_bit_sides_noise() {
        let float = served(Precision::Float32, None);
        let int8 = served(Precision::Int8, Some(0.007));
        assert_eq!(int8.noise_between(None), Some(0.007));
        assert_eq!(
            int8.noise_between(made("bfloat16", None).as_ref()),
            Some(0.007)
        );
        assert_eq!(
            float.noise_between(made("int8", Some(0.5)).as_ref()),
            Some(0.5)
        );
    }

    #[test]
    fn a_version_on_a_base_records_both_formats_and_the_larger_noise() {
        let int8 = served(Precision::Int8, Some(0.007));
        assert_eq!(Some(int8.record(None)), made("int8", Some(0.007)));
        let base = made("bfloat16", None);
        let mixed = int8.record(base.as_ref());
        assert_eq!(Some(mixed.clone()), made("bfloat16, int8", Some(0.007)));
        // Encoded again, by a server in bfloat16.
        let float = served(Precision::Bfloat16, None);
        assert_eq!(float.record(Some(&mixed)), mixed);
        let worse = served(Precision::Int8, Some(0.009));
        assert_eq!(worse.record(Some(&mixed)).noise, Some(0.009));
    }

    #[test]
    fn what_is_made_without_pictures_serves_where_it_was_made() {
        let int8 = served(Precision::Int8, Some(0.5));
        let record = int8.record_without_pictures(None);
        assert_eq!(record, made("", Some(0.5)));
        assert_eq!(int8.noise_between(record.as_ref()), None);
        // Embeddings may be 8-bit ones: not for a float server.
        let float = served(Precision::Float32, None);
        assert_eq!(float.noise_between(record.as_ref()), Some(0.5));
        assert_eq!(float.record_without_pictures(None), None);
        // A base says what it is, and if it does not, it is float.
        let base = made("int8", Some(0.4));
        assert_eq!(float.record_without_pictures(Some(base.as_ref())), base);
        assert_eq!(int8.record_without_pictures(Some(None)), None);
        // Pictures that come later are the first that were embedded.
        assert_eq!(Some(int8.record(record.as_ref())), made("int8", Some(0.5)));
    }
}
