//! The same pictures on the CPU in float32 and on the device in every format.

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::{Encoding, first, pictures};
use tipserve_clip::{DtypeChoice, ImageEncoder, Precision};
use tipserve_engine::Encoder as _;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    encoding: Encoding,
    /// Number of random pictures to compare.
    #[arg(long, default_value_t = 64)]
    pictures: usize,
    /// Classes of the random classifier whose best class is compared.
    #[arg(long, default_value_t = 100)]
    classes: i64,
    /// Of the pictures and the classifier.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub fn run(args: &Args) -> anyhow::Result<Value> {
    let opened = args.encoding.open()?;
    let spec = opened
        .bundle
        .image
        .clone()
        .ok_or_else(|| anyhow::anyhow!("the bundle has no image encoder"))?;
    let pictures = pictures::prepared(args.pictures, spec.size.width as usize, args.seed);
    let slices: Vec<&[u8]> = pictures.iter().map(Vec::as_slice).collect();
    let batch = Tensor::f_from_slice(&pictures.concat())?;
    let batch = batch.f_view(spec.size.batch_shape(pictures.len()))?;

    let reference = ImageEncoder::load(&opened.bundle, Device::Cpu, Kind::Float)?;
    let reference = unit(&reference.encode(&batch)?)?;
    tch::manual_seed(args.seed as i64);
    let float64 = (Kind::Double, Device::Cpu);
    let weights = Tensor::f_randn([args.classes, opened.bundle.width as i64], float64)?;
    let weights = unit(&weights)?;

    let device = first(&opened.devices);
    let mut precisions = vec![Precision::Bfloat16, Precision::Float32];
    if device.is_cuda() {
        precisions.insert(0, Precision::Float16);
    }
    precisions.extend(DtypeChoice::Int8.of(&opened.bundle, device));
    let mut formats = Vec::new();
    for precision in precisions {
        let (encoder, graphs) = opened.image_encoder(precision)?;
        // In batches of several sizes, and once per stream slot and device.
        let mut cosine = f64::INFINITY;
        let (mut judged, mut wrong, mut other) = (0, 0, 0);
        for size in [1, 3, slices.len()] {
            for _ in 0..opened.settings.threads.workers {
                let mut rows = Vec::new();
                for chunk in slices.chunks(size) {
                    let raw = encoder.encode_apart(chunk, spec.size);
                    rows.push(raw.map_err(|fault| anyhow::anyhow!(fault.detail))?);
                }
                let features = unit(&Tensor::f_cat(&rows, 0)?)?;
                let verdict = compare(&features, &reference, &weights)?;
                cosine = cosine.min(verdict.cosine);
                judged += verdict.judged;
                wrong += verdict.wrong;
                other += verdict.other;
            }
        }
        formats.push(json!({
            "dtype": precision.name(),
            "least_cosine": cosine,
            "argmax_judged": judged,
            "argmax_wrong": wrong,
            "argmax_other_within_margin": other,
            "cuda_graphs": graphs,
        }));
    }
    Ok(json!({"pictures": pictures.len(), "classes": args.classes, "formats": formats}))
}

struct Verdict {
    cosine: f64,
    judged: i64,
    wrong: i64,
    other: i64,
}

/// Where the features differ by δ, a logit f·w of unit w differs by at most δ:
/// the best class must stay where it leads by more than 2δ.
fn compare(features: &Tensor, reference: &Tensor, weights: &Tensor) -> anyhow::Result<Verdict> {
    let cosine =
        (features * reference).f_sum_dim_intlist([1i64].as_slice(), false, Kind::Double)?;
    let delta = (features - reference).f_norm_scalaropt_dim(2.0, [1], false)?;
    let logits = reference.f_mm(&weights.f_tr()?)?;
    let (top, _) = logits.f_topk(2, 1, true, true)?;
    let lead = top.f_select(1, 0)? - top.f_select(1, 1)?;
    let clear = lead.f_gt_tensor(&(delta * 2.0))?;
    let ours = features.f_mm(&weights.f_tr()?)?.f_argmax(1, false)?;
    let differs = ours.f_ne_tensor(&logits.f_argmax(1, false)?)?;
    let count =
        |mask: &Tensor| -> anyhow::Result<i64> { Ok(mask.f_sum(Kind::Int64)?.f_int64_value(&[])?) };
    let wrong = count(&differs.f_logical_and(&clear)?)?;
    Ok(Verdict {
        cosine: cosine.f_min()?.f_double_value(&[])?,
        judged: count(&clear)?,
        wrong,
        other: count(&differs)? - wrong,
    })
}

/// Unit rows, float64 on the CPU.
fn unit(rows: &Tensor) -> anyhow::Result<Tensor> {
    let rows = rows.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
    Ok(rows.f_div(&rows.f_norm_scalaropt_dim(2.0, [1], true)?)?)
}
