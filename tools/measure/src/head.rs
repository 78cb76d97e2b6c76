//! One head: how long it takes, and how far it is from float64.

use std::path::PathBuf;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::{Place, best, first, profile, seconds};
use tip_adapter::{
    grouped::grouped_logits,
    head::{Head, HeadTensors, Values},
};
use tip_spec::{ClassBalance, HeadSpec, KeyDtype, Method, Selection, SelectionSource};
use tipserve_clip::cuda;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// float32, bfloat16 or float16: of the keys.
    #[arg(long, default_value = "float32")]
    keys_dtype: String,
    /// N, the number of classes.
    #[arg(long, default_value_t = 1000)]
    classes: i64,
    /// M, a multiple of N.
    #[arg(long, default_value_t = 16_000)]
    keys: i64,
    /// D, the width of features and keys.
    #[arg(long, default_value_t = 512)]
    width: i64,
    /// B, the number of rows in a batch.
    #[arg(long, default_value_t = 256)]
    batch: i64,
    /// Rows of the batch that are computed in float64 too.
    #[arg(long, default_value_t = 4)]
    checked: i64,
    /// Draw the labels at random, so that classes have unequal numbers of keys.
    #[arg(long)]
    uneven: bool,
    /// Small heads beside it, drawn at random for each picture.
    #[arg(long)]
    among: Option<usize>,
    /// Also choose this many best classes on the device, and say whether they
    /// are the same.
    #[arg(long)]
    best: Option<usize>,
    /// Number of rounds; the median is reported.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    #[arg(long, default_value_t = 0.2)]
    round: f64,
    /// Writes a profile of ten further calls to this file.
    #[arg(long)]
    profile: Option<PathBuf>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

const ALPHA: f64 = 1.0;
const BETA: f64 = 5.5;

pub fn run(args: &Args) -> anyhow::Result<Value> {
    let devices = args.place.open()?;
    let device = first(&devices);
    tch::manual_seed(args.seed as i64);
    let dtype = match args.keys_dtype.as_str() {
        "float32" => KeyDtype::F32,
        "bfloat16" => KeyDtype::Bf16,
        "float16" => KeyDtype::F16,
        other => anyhow::bail!("{other:?} is no format of keys"),
    };
    let float = (Kind::Float, Device::Cpu);
    let unit = |rows: i64| -> anyhow::Result<Tensor> {
        let mut rows = Tensor::f_randn([rows, args.width], float)?;
        let norms = rows.f_norm_scalaropt_dim(2.0, [1], true)?;
        Ok(rows.f_div_(&norms)?)
    };
    let integers = (Kind::Int64, Device::Cpu);
    let labels = if args.uneven {
        Tensor::f_randint(args.classes, [args.keys], integers)?
    } else {
        Tensor::f_arange(args.keys, integers)?.f_remainder(args.classes)?
    };
    let (keys, linear) = (unit(args.keys)?, unit(args.classes)? * 100.0);
    let tensors = HeadTensors {
        classes: args.classes as usize,
        linear: Some(linear),
        bias: None,
        cache: Some((
            keys,
            Values::OneHot {
                labels,
                weight: Tensor::f_full([args.classes], ALPHA, float)?,
            },
        )),
        standardised: None,
    };
    let head = Head::new(&spec(dtype), &tensors, device)?;
    let host = unit(args.batch)?;
    let features = host.f_to_device(device)?;

    let logits = head.logits(&features)?;
    let checked = args.checked.min(args.batch);
    let error = (logits.f_narrow(0, 0, checked)?)
        .f_to_device(Device::Cpu)?
        .f_to_kind(Kind::Double)?
        .f_sub(&reference(&host.f_narrow(0, 0, checked)?, &tensors)?)?
        .f_abs()?
        .f_max()?
        .f_double_value(&[])?;
    drop(logits);
    let one = seconds(device, args.rounds, args.round, || {
        drop(head.logits(&features)?);
        Ok(())
    })?;
    if let Some(file) = &args.profile {
        profile::recorded(device, file, || ten_calls(&head, &features, device))?;
    }
    let best = match args.best {
        None => None,
        Some(classes) => Some(best::measure(&best::Batch {
            head: &head,
            features: &features,
            classes,
            rounds: (args.rounds, args.round),
        })?),
    };
    let among = match args.among {
        None => None,
        Some(count) => Some(mixed(args, &tensors, dtype, device, &features, count)?),
    };
    Ok(json!({
        "seconds": one,
        "largest_error": error,
        "head_bytes": head.size_bytes(),
        "computes_with": head.describe(),
        "seconds_among_many": among,
        "best": best,
    }))
}

fn ten_calls(head: &Head, features: &Tensor, device: Device) -> anyhow::Result<()> {
    for _ in 0..10 {
        drop(head.logits(features)?);
    }
    cuda::synchronise(device);
    Ok(())
}

/// Seconds of a batch whose pictures go to `count` heads at random.
fn mixed(
    args: &Args,
    tensors: &HeadTensors,
    dtype: KeyDtype,
    device: Device,
    features: &Tensor,
    count: usize,
) -> anyhow::Result<f64> {
    use rand::{Rng as _, SeedableRng as _};
    let mut heads = Vec::with_capacity(count);
    for _ in 0..count.max(1) {
        heads.push(Head::new(&spec(dtype), tensors, device)?);
    }
    let rows: Vec<i64> = (0..args.batch).collect();
    let mut rng = rand::rngs::StdRng::seed_from_u64(args.seed);
    seconds(device, args.rounds, args.round, || {
        let mut drawn: Vec<Vec<i64>> = vec![Vec::new(); heads.len()];
        for &row in &rows {
            let at = rng.random_range(0..drawn.len());
            if let Some(own) = drawn.get_mut(at) {
                own.push(row);
            }
        }
        let groups: Vec<(&Head, &[i64])> = heads
            .iter()
            .zip(&drawn)
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(head, rows)| (head, rows.as_slice()))
            .collect();
        drop(grouped_logits(features, &groups)?);
        Ok(())
    })
}

/// The formula in float64, a run of keys at a time: of a million keys,
/// [`plain_logits`](tip_adapter::formula::plain_logits) would hold [M, N].
fn reference(features: &Tensor, tensors: &HeadTensors) -> anyhow::Result<Tensor> {
    const RUN: i64 = 65_536;
    let f = features.f_to_kind(Kind::Double)?;
    let mut logits = match &tensors.linear {
        Some(linear) => f.f_mm(&linear.f_to_kind(Kind::Double)?.f_tr()?)?,
        None => Tensor::f_zeros(
            [f.size2()?.0, tensors.classes as i64],
            (Kind::Double, Device::Cpu),
        )?,
    };
    if let Some((keys, Values::OneHot { labels, weight })) = &tensors.cache {
        let (count, _) = keys.size2()?;
        for start in (0..count).step_by(RUN as usize) {
            let length = RUN.min(count - start);
            let k = keys.f_narrow(0, start, length)?.f_to_kind(Kind::Double)?;
            let own = labels.f_narrow(0, start, length)?;
            let x = ((f.f_mm(&k.f_tr()?)? - 1.0) * BETA).f_exp()?
                * weight.f_to_kind(Kind::Double)?.f_index_select(0, &own)?;
            logits = logits.f_index_add(1, &own, &x)?;
        }
    }
    Ok(logits)
}

fn spec(key_dtype: KeyDtype) -> HeadSpec {
    HeadSpec {
        method: Method::TipAdapter,
        alpha: ALPHA,
        beta: BETA,
        lambda: 0.0,
        logit_scale: 100.0,
        class_balance: ClassBalance::Sum,
        temperature: 1.0,
        key_dtype,
        standardised: None,
        selection: Selection::unsearched(SelectionSource::Default),
        unseen: None,
        unlabelled: None,
    }
}
