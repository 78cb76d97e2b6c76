//! Everything about a version but its tensors: `manifest.json`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    layout,
    name::{CacheId, VersionNumber},
    tensors::NamedTensor,
};
use tip_spec::{ContrastSpec, HeadSpec, MultiLabelSpec, SelectionSource};
use tipserve_api::text::into_canonical;

/// A version's manifest: everything but the tensors. Immutable once written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of the manifest and of what it describes.
    pub format: u32,
    /// The cache that it is a version of.
    pub cache: CacheId,
    /// The version's number, unique within the cache.
    pub version: VersionNumber,
    /// When it was published, by the storage's clock.
    pub create_time: DateTime<Utc>,
    /// What its maker said about it.
    #[serde(flatten)]
    pub details: Details,
    /// The request that made it, if it had an id: repeated, it returns this
    /// version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Digest of what that request asked for ([`RequestKey::digest`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_digest: Option<String>,
    /// The file with its tensors.
    pub tensors: TensorsRecord,
}

/// What the maker of a version says about it. Flat in `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// Who or what made it, for people.
    #[serde(default)]
    pub created_by: String,
    /// The version that it was made from (`caches/x/versions/3`), if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// What its maker says about it, free text.
    #[serde(default)]
    pub description: String,
    /// Key-value pairs that its maker set; the server gives them no meaning.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The classes, by index; N of them.
    pub classes: Vec<ClassRecord>,
    /// Width of the embedding space, D.
    pub width: usize,
    /// M, the number of keys.
    pub key_count: u64,
    /// Views kept of each example, R; 0 if none are.
    pub views: u32,
    /// What was done with the EXIF orientation of its examples, and so is done
    /// with what it classifies. Older manifests lack it: the orientation was
    /// ignored then.
    #[serde(default)]
    pub exif_orientation: ExifOrientation,
    /// Fingerprint of the bundle that made the features.
    pub bundle_fingerprint: String,
    /// The bundle's name, for people.
    #[serde(default)]
    pub bundle_name: String,
    /// The head's numbers, and how they were chosen.
    pub head: HeadSpec,
    /// How it was fine-tuned, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fine_tune: Option<FineTuneRecord>,
    /// Counts of the examples it was made from; none if no examples were sent
    /// (fine-tuned, imported) or if an older tipserve made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceCounts>,
    /// The encoder of its pictures; none if no picture was encoded (features
    /// were sent) or if an older tipserve made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<EncoderRecord>,
    /// Examples that a picture is kept of.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pictures: u64,
    /// What its examples of no class add to the score of a picture; none if
    /// it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contrast: Option<ContrastSpec>,
    /// Deciles of the similarity of its examples to their nearest neighbours
    /// among the others; empty of too few, and from older writers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nearest_deciles: Vec<f64>,
    /// As many independent examples would estimate these deciles as well; 0
    /// without deciles, and from older writers.
    #[serde(default, skip_serializing_if = "is_zero_number")]
    pub nearest_sample: f64,
    /// Set if its examples have any number of classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multi_label: Option<MultiLabelSpec>,
    /// How much each encoder of a joined bundle counts, in the order of their
    /// features; empty if the bundle has one encoder, or does not say where the
    /// features of each lie.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub part_weights: Vec<PartWeight>,
}

/// How much one encoder of a joined bundle counts in a version: its share of
/// the cosine of two features. The shares of a version's encoders sum to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartWeight {
    /// Width of its features.
    pub width: usize,
    /// Its share as the bundle has it.
    pub bundle: f64,
    /// Its share in this version, whose stored features have it too.
    pub used: f64,
}

/// The number format that a version's features come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EncoderRecord {
    /// "float32", "bfloat16", "float16" or "int8"; several, with commas
    /// between, if the base's features and the new ones differ. Empty if no
    /// picture was embedded, on a server that computes in 8 bits.
    pub dtype: String,
    /// Mean squared error of 8-bit features, over the variance of float ones;
    /// none if all are float.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<f64>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde wants it
fn is_zero_number(number: &f64) -> bool {
    *number == 0.0
}

/// What a version does with the orientation that cameras write beside the
/// pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExifOrientation {
    /// The pixels stay as they are stored.
    #[default]
    Ignore,
    /// The picture is turned upright.
    Apply,
}

/// Counts of the examples that a version was made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceCounts {
    /// Examples received, those rejected included.
    pub received: u64,
    /// Examples that could not be used.
    pub rejected: u64,
    /// Examples taken over from the parent.
    pub inherited: u64,
    /// Examples of the parent that were left out.
    pub removed: u64,
    /// Examples received, and not rejected, whose file lacks its end mark.
    #[serde(default)]
    pub without_end_mark: u64,
}

/// A class, and how many examples it was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassRecord {
    /// Its name for people; two classes may share it. Read in the form that
    /// names are compared in, whatever form an older tipserve wrote it in.
    #[serde(deserialize_with = "canonical_name")]
    pub display_name: String,
    /// Training examples of the class, each a key.
    pub example_count: u64,
    /// Validation examples of the class.
    #[serde(default)]
    pub validation_count: u64,
    /// The prompts that its text weights were made of, if any.
    #[serde(default)]
    pub prompts: Vec<String>,
}

fn canonical_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(into_canonical)
}

/// How a version was fine-tuned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FineTuneRecord {
    /// Epochs run, also those after the best one.
    pub epochs: u32,
    /// The epoch whose keys were kept, from 1; 0 for the keys before training.
    pub best_epoch: u32,
    /// Seed of every random choice.
    pub seed: u64,
    /// Training loss of the epoch that was kept, nats.
    pub loss: f64,
    /// Score by which the epoch was chosen, before training, 0 to 1.
    pub accuracy_before: f64,
    /// The same score of the epoch that was kept.
    pub accuracy_after: f64,
    /// What the epoch was chosen on.
    pub source: SelectionSource,
    /// Seconds that the run spent training.
    pub seconds: f64,
    /// What was trained: keys or a residual.
    #[serde(default)]
    pub recipe: FineTuneRecipe,
    /// Regularisation of a residual; 0 for keys.
    #[serde(default)]
    pub strength: f64,
    /// Mean cross-entropy on unseen examples before, nats; none for keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cross_entropy_before: Option<f64>,
    /// The same with what was trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cross_entropy_after: Option<f64>,
    /// Unseen examples that decided; 0 for keys.
    #[serde(default)]
    pub example_count: u64,
}

/// Which part of a head fine-tuning trains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FineTuneRecipe {
    /// The keys, as Tip-Adapter-F's authors do it.
    #[default]
    TipAdapterF,
    /// A linear residual on the version's own head.
    Residual,
}

/// The file with a version's tensors, beside its manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorsRecord {
    /// File name within the version's folder.
    pub name: String,
    /// Size of the file, in bytes.
    pub size: u64,
    /// SHA-256 of the whole file, lower-case hex.
    pub sha256: String,
}

/// A version not yet published: it has no number and no date.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What the manifest will say.
    pub details: Details,
    /// What goes into the tensors file; `docs/storage.md` has names and shapes.
    pub tensors: Vec<NamedTensor>,
    /// The key of the request, if it may be repeated.
    pub request: Option<RequestKey>,
}

/// What makes repeating a request safe (AIP-155): each key makes one version,
/// however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestKey {
    /// The client's id of the request, which no other request for this cache
    /// has.
    pub id: String,
    /// Digest of the specification, so that an id that is used for two
    /// different ones is noticed.
    pub digest: String,
}

impl RequestKey {
    /// The suffix, in lower-case hexadecimal, of the names of everything that
    /// this request makes: a listing finds it by that.
    pub fn mark(&self) -> String {
        layout::request_hash(&self.id)
    }
}

impl Manifest {
    /// The resource name, `caches/{cache}/versions/{version}`.
    pub fn resource_name(&self) -> String {
        self.cache.version_name(self.version)
    }
}
