//! What a stored version's head was made from.

use tch::{Device, Kind, Tensor};

use super::{
    Catalog, CatalogError, classifier::refuse_multi_label, columns::check_shapes,
    ingredients::statistics, part_weights::Weighing, tensors,
};
use tip_adapter::{contrast::sharpen, make::Made, material::Material};
use tip_spec::ContrastSpec;
use tipserve_store::{Manifest, StoreError, TensorFile, tensors::names};

/// The contrast of a version's examples of no class for another head made from
/// its examples.
///
/// # Errors
/// A file that does not match its manifest; torch's.
pub(super) fn contrast(
    material: &Material,
    made: &mut Made,
    file: &TensorFile,
) -> Result<Option<ContrastSpec>, CatalogError> {
    match tensors::read(file, names::UNKNOWN_FEATURES)? {
        Some(unknown) => Ok(sharpen(material, made, &unknown)?),
        None => Ok(None),
    }
}

impl Catalog {
    /// A version's examples and text weights as its head was made from them.
    ///
    /// # Errors
    /// A file that does not match its manifest; torch's.
    pub(super) fn material(
        &self,
        manifest: &Manifest,
        file: &TensorFile,
    ) -> Result<Material, CatalogError> {
        refuse_multi_label(
            manifest,
            "its examples carry any number of classes, and this takes one of each",
        )?;
        let details = &manifest.details;
        check_shapes(details, file)
            .map_err(|detail| StoreError::damaged(manifest.resource_name(), detail))?;
        let empty = |shape: &[i64], kind| {
            Tensor::f_zeros(shape, (kind, Device::Cpu)).map_err(CatalogError::internal)
        };
        let keys = match tensors::read(file, names::KEYS)? {
            Some(keys) => keys,
            None => empty(&[0, details.width as i64], Kind::Float)?,
        };
        let labels = match tensors::read(file, names::LABELS)? {
            Some(labels) => labels,
            None => empty(&[0], Kind::Int64)?,
        };
        let validation = match (
            tensors::read(file, names::VALIDATION_FEATURES)?,
            tensors::read(file, names::VALIDATION_LABELS)?,
        ) {
            (Some(features), Some(labels)) => Some((features, labels)),
            _ => None,
        };
        Ok(Material {
            keys,
            labels,
            classes: details.classes.len(),
            views: tensors::read(file, names::VIEWS)?,
            text: tensors::read(file, names::TEXT)?,
            validation,
            logit_scale: details.head.logit_scale,
            statistics: match (
                self.bundles.of_manifest(manifest),
                Weighing::of(&details.part_weights),
            ) {
                (Err(_), _) => None,
                (Ok(bundle), None) => statistics(&bundle.model)?,
                (Ok(bundle), Some(weighing)) => statistics(&bundle.model)?
                    .map(|of| weighing.statistics(&of))
                    .transpose()?,
            },
            unlabelled: tensors::read(file, names::UNLABELLED)?,
        })
    }
}
