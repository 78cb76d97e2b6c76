//! Random versions, each made again from its seed, and stores to put them in.

use std::{path::Path, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tip_spec::{ClassBalance, HeadSpec, KeyDtype, Method, Selection, SelectionSource};
use tipserve_store::{
    CacheId, ClassRecord, Details, Draft, Dtype, ExifOrientation, Manifest, NamedTensor, Store,
    StoreError, StoreOptions, TensorFile, TextColumn, VersionNumber,
};

use crate::seaweedfs::SeaweedFs;

pub fn id(text: &str) -> CacheId {
    text.parse().expect("an id")
}

pub fn number(n: u64) -> VersionNumber {
    VersionNumber::new(n).expect("a number")
}

pub async fn local(folder: &Path) -> Store {
    open(folder, StoreOptions::default()).await
}

pub async fn open(folder: &Path, options: StoreOptions) -> Store {
    let url = folder.to_str().expect("a plain path");
    Store::open_with(url, options).await.expect("opens")
}

pub async fn bucket(server: &SeaweedFs, prefix: &str) -> Store {
    let options = StoreOptions {
        settings: server.settings(),
        ..StoreOptions::default()
    };
    Store::open_with(&server.url(prefix), options)
        .await
        .expect("opens")
}

/// Sweeps as if everything were old.
pub async fn sweeper(folder: &Path) -> Store {
    let options = StoreOptions {
        leftover_age: Duration::ZERO,
        ..StoreOptions::default()
    };
    open(folder, options).await
}

pub fn fresh_seed() -> u64 {
    let seed = rand::random();
    eprintln!("seed {seed}");
    seed
}

fn floats(rng: &mut StdRng, name: &str, shape: &[usize]) -> NamedTensor {
    let count: usize = shape.iter().product();
    let bytes: Vec<u8> = (0..count)
        .flat_map(|_| rng.random_range(-1.0_f32..1.0).to_le_bytes())
        .collect();
    NamedTensor {
        name: name.into(),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
        bytes: bytes.into(),
    }
}

/// A version with one of everything, of that seed.
pub fn draft(seed: u64) -> Draft {
    let mut rng = StdRng::seed_from_u64(seed);
    let (n, d) = (rng.random_range(1..6), rng.random_range(1..40));
    let m = n * rng.random_range(1..5);
    let labels: Vec<u8> = (0..m)
        .flat_map(|i| ((i % n) as i64).to_le_bytes())
        .collect();
    let mut tensors = vec![
        floats(&mut rng, "keys", &[m, d]),
        NamedTensor {
            name: "labels".into(),
            dtype: Dtype::I64,
            shape: vec![m],
            bytes: labels.into(),
        },
        floats(&mut rng, "text", &[n, d]),
        floats(&mut rng, "head.linear", &[n, d]),
        floats(&mut rng, "head.weight", &[n]),
    ];
    tensors.push(NamedTensor {
        name: "views".into(),
        dtype: Dtype::F16,
        shape: vec![m, 1, d],
        bytes: (0..m * d * 2).map(|_| rng.random()).collect(),
    });
    let ids = (0..m).map(|i| format!("příklad/{i}.jpg"));
    tensors.extend(TextColumn::encode("example_ids", ids));
    let classes = (0..n).map(|c| ClassRecord {
        display_name: format!("class {c}"),
        example_count: (m / n) as u64,
        ..ClassRecord::default()
    });
    let details = Details {
        created_by: "test".into(),
        parent: None,
        description: format!("seed {seed}"),
        labels: [("team".to_owned(), "mill 7".to_owned())].into(),
        classes: classes.collect(),
        width: d,
        key_count: m as u64,
        views: 1,
        exif_orientation: ExifOrientation::Apply,
        bundle_fingerprint: "f".repeat(64),
        bundle_name: "random".into(),
        encoder: None,
        head: HeadSpec {
            method: Method::TipAdapter,
            alpha: 1.0,
            beta: 5.5,
            lambda: 0.0,
            logit_scale: 100.0,
            class_balance: ClassBalance::Sum,
            temperature: 1.0,
            key_dtype: KeyDtype::F32,
            standardised: None,
            selection: Selection {
                source: SelectionSource::Default,
                example_count: 0,
                score: "none".into(),
                grid: "none".into(),
                candidates: Vec::new(),
                reason: "a test".into(),
            },
            unseen: None,
            unlabelled: None,
        },
        fine_tune: None,
        source: None,
        pictures: 0,
        contrast: None,
        nearest_deciles: Vec::new(),
        nearest_sample: 0.0,
        part_weights: Vec::new(),
        multi_label: None,
    };
    Draft {
        details,
        tensors,
        request: None,
    }
}

/// The seed that a version says it was made of.
pub fn seed_of(manifest: &Manifest) -> u64 {
    let seed = manifest.details.description.strip_prefix("seed ");
    seed.expect("a seed").parse().expect("a seed")
}

/// Whether a version is, to the last byte, what its seed makes.
pub fn is_whole(manifest: &Manifest, file: &TensorFile) -> bool {
    let expected = draft(seed_of(manifest));
    let same = |tensor: &NamedTensor| {
        file.get(&tensor.name).is_some_and(|view| {
            (view.dtype, view.shape, view.bytes)
                == (tensor.dtype, tensor.shape.as_slice(), &tensor.bytes[..])
        })
    };
    manifest.details == expected.details
        && file.names().len() == expected.tensors.len()
        && expected.tensors.iter().all(same)
}

/// Loads a version and holds every byte against its seed.
pub async fn load_whole(
    store: &Store,
    id: &CacheId,
    version: VersionNumber,
) -> Result<u64, StoreError> {
    let (manifest, file) = store.load(id, version).await?;
    assert!(
        is_whole(&manifest, &file),
        "{} differs",
        manifest.resource_name()
    );
    Ok(seed_of(&manifest))
}
