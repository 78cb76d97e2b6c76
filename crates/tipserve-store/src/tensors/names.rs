//! Names of the tensors of a version (`docs/storage.md` has shapes and dtypes).

/// Keys of the examples, f32 [M, D], unit rows.
pub const KEYS: &str = "keys";
/// Classes of the keys, i64 [M].
pub const LABELS: &str = "labels";
/// Features of every view, f16 [M, R, D].
pub const VIEWS: &str = "views";
/// Class text weights, f32 [N, D], unit rows.
pub const TEXT: &str = "text";
/// Features of the validation examples, f32 [Q, D].
pub const VALIDATION_FEATURES: &str = "validation.features";
/// Classes of the validation examples, i64 [Q].
pub const VALIDATION_LABELS: &str = "validation.labels";
/// Where the classes of each key begin in [`LABEL_INDICES`], i64 [M + 1]: of
/// versions whose examples carry any number of classes, instead of `labels`.
pub const LABEL_OFFSETS: &str = "labels.offsets";
/// Classes, i64 [·], ascending within an example.
pub const LABEL_INDICES: &str = "labels.indices";
/// As [`LABEL_OFFSETS`], of the validation examples.
pub const VALIDATION_LABEL_OFFSETS: &str = "validation.labels.offsets";
/// As [`LABEL_INDICES`], of the validation examples.
pub const VALIDATION_LABEL_INDICES: &str = "validation.labels.indices";
/// How often answers for unseen examples were right: rows of probability,
/// answers that reach it, right ones among them and their mean probability,
/// f32 [·, 4], class after class.
pub const PRECISION_POINTS: &str = "precision.points";
/// Where each class's rows begin, i64 [N + 1].
pub const PRECISION_OFFSETS: &str = "precision.offsets";
/// Unseen examples of each class, i64 [N].
pub const PRECISION_POSITIVES: &str = "precision.positives";
/// Features of the examples of no class, f32 [U, D], unit rows.
pub const UNKNOWN_FEATURES: &str = "unknown.features";
/// Features of the pictures without labels, f32 [U, D], unit rows.
pub const UNLABELLED: &str = "unlabelled.features";
/// L, f32 [N, D].
pub const HEAD_LINEAR: &str = "head.linear";
/// b, added to the logits, f32 [N].
pub const HEAD_BIAS: &str = "head.bias";
/// K if it is not `keys` (fine-tuned), f32 [M, D].
pub const HEAD_KEYS: &str = "head.keys";
/// V if it is dense, f32 [M, N].
pub const HEAD_VALUES: &str = "head.values";
/// Factor of each class of a one-hot V, f32 [N].
pub const HEAD_WEIGHT: &str = "head.weight";
/// μ of standardised features, f32 [D].
pub const HEAD_SHIFT: &str = "head.shift";
/// What standardised features are multiplied by, f32 [D].
pub const HEAD_SCALE: &str = "head.scale";
/// L′, which sees standardised features, f32 [N, D].
pub const HEAD_STANDARDISED_LINEAR: &str = "head.standardised_linear";
/// Ids of the examples: a column of texts (see [`crate::TextColumn`]).
pub const EXAMPLE_IDS: &str = "example_ids";
/// Ids of the validation examples: a column of texts.
pub const VALIDATION_IDS: &str = "validation.ids";
/// Where the examples came from: a column of texts, empty for unknown.
pub const EXAMPLE_URIS: &str = "example_uris";
/// The same of the validation examples.
pub const VALIDATION_URIS: &str = "validation.uris";
/// What their sender says of the examples: a column of JSON objects of
/// strings, empty for nothing.
pub const EXAMPLE_METADATA: &str = "example_metadata";
/// The same of the validation examples.
pub const VALIDATION_METADATA: &str = "validation.metadata";
/// Ids of the examples of no class: a column of texts.
pub const UNKNOWN_IDS: &str = "unknown.ids";
/// Where they came from: a column of texts.
pub const UNKNOWN_URIS: &str = "unknown.uris";
/// What their sender says of them: a column of JSON objects of strings.
pub const UNKNOWN_METADATA: &str = "unknown.metadata";
/// Thumbnails of the examples of none of the classes.
pub const UNKNOWN_PICTURES: &str = "unknown.pictures";
/// Thumbnails of the examples (see [`crate::PictureColumn`]).
pub const EXAMPLE_PICTURES: &str = "example_pictures";
/// Thumbnails of the validation examples.
pub const VALIDATION_PICTURES: &str = "validation.pictures";

/// Whether a tensor belongs to a column that says something of the examples
/// themselves, and so is taken over by versions of the same examples.
pub fn describes_examples(name: &str) -> bool {
    let column = name.rsplit_once('.').map_or(name, |(column, _)| column);
    [
        EXAMPLE_IDS,
        VALIDATION_IDS,
        EXAMPLE_URIS,
        VALIDATION_URIS,
        EXAMPLE_METADATA,
        VALIDATION_METADATA,
        EXAMPLE_PICTURES,
        VALIDATION_PICTURES,
        UNKNOWN_IDS,
        UNKNOWN_URIS,
        UNKNOWN_METADATA,
        UNKNOWN_PICTURES,
    ]
    .contains(&column)
}
