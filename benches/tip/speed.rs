//! The head's speed, side by side with the formula as a user would write it in
//! PyTorch, in one process and on the same threads. The two take turns, and
//! the ratio is the median of the turns' ratios, so that other work on the
//! machine meets both.

use std::{hint::black_box, time::Instant};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tch::{
    Device, Kind, Tensor,
    nn::{self, OptimizerConfig as _},
};
use tip_adapter::{
    finetune::{Options, Progress, Trainer, TrainingSet},
    grouped::grouped_logits,
    head::{Backend, Head, HeadTensors, Values},
};
use tip_spec::{ClassBalance, HeadSpec, KeyDtype, Method, Selection, SelectionSource};

use crate::Row;

const BETA: f64 = 5.5;
const ALPHA: f64 = 1.0;

/// N, M, D.
#[derive(Clone, Copy)]
struct Size {
    classes: i64,
    keys: i64,
    width: i64,
}

const IMAGENET_16: Size = Size {
    classes: 1000,
    keys: 16_000,
    width: 512,
};
const SMALL: Size = Size {
    classes: 10,
    keys: 160,
    width: 512,
};

/// Every comparison, in the order of the table.
pub fn rows() -> Vec<Row> {
    tch::manual_seed(1);
    let mut rows = Vec::new();
    head(&mut rows);
    grouped(&mut rows);
    finetune(&mut rows);
    million(&mut rows);
    rows
}

fn unit(rows: i64, width: i64) -> Tensor {
    let x = Tensor::randn([rows, width], (Kind::Float, Device::Cpu));
    let norm = x
        .square()
        .sum_dim_intlist([1i64].as_slice(), true, Kind::Float)
        .sqrt();
    x / norm
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
        selection: Selection::unsearched(SelectionSource::Given),
        unseen: None,
        unlabelled: None,
    }
}

/// Text weights and keys, a head of them, and the plain formula's tensors.
struct Case {
    text: Tensor,
    keys: Tensor,
    labels: Tensor,
    one_hot: Tensor,
}

impl Case {
    fn new(size: Size) -> Self {
        let labels = Tensor::arange(size.keys, (Kind::Int64, Device::Cpu)).remainder(size.classes);
        Self {
            text: unit(size.classes, size.width),
            // Around a centre per class, as features are.
            keys: {
                let centres = unit(size.classes, size.width).index_select(0, &labels);
                let x = centres + unit(size.keys, size.width) * 0.8;
                let norm = x
                    .square()
                    .sum_dim_intlist([1i64].as_slice(), true, Kind::Float)
                    .sqrt();
                x / norm
            },
            one_hot: labels.one_hot(size.classes).to_kind(Kind::Float),
            labels,
        }
    }

    fn head(&self, dtype: KeyDtype) -> Head {
        let classes = self.text.size()[0];
        let tensors = HeadTensors {
            classes: classes as usize,
            linear: Some(&self.text * 100.0),
            bias: None,
            cache: Some((
                self.keys.shallow_clone(),
                Values::OneHot {
                    labels: self.labels.shallow_clone(),
                    weight: Tensor::full([classes], ALPHA, (Kind::Float, Device::Cpu)),
                },
            )),
            standardised: None,
        };
        Head::new(&spec(dtype), &tensors, Device::Cpu).expect("a head")
    }

    /// `100·f·Wᵀ + α·exp(−β(1 − f·Kᵀ))·V`, as a user would write it.
    fn formula(&self, f: &Tensor) -> Tensor {
        let affinity = f.matmul(&self.keys.tr());
        let one_minus: Tensor = 1.0 - affinity;
        let cache = (one_minus * -BETA).exp().matmul(&self.one_hot) * ALPHA;
        (f * 100.0).matmul(&self.text.tr()) + cache
    }
}

/// Seconds: of the wall, or of the processor with TIPSERVE_BENCH_CPU=1 (for one
/// thread on a busy machine).
fn clock() -> f64 {
    use std::sync::LazyLock;
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    static CPU: LazyLock<bool> = LazyLock::new(|| std::env::var_os("TIPSERVE_BENCH_CPU").is_some());
    if !*CPU {
        return START.elapsed().as_secs_f64();
    }
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes one timespec.
    #[allow(unsafe_code)]
    unsafe {
        libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut now)
    };
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}

/// Median seconds of each, taking turns, and the median ratio a / b.
fn side_by_side(turns: usize, mut a: impl FnMut(), mut b: impl FnMut()) -> (f64, f64, f64) {
    let time = |f: &mut dyn FnMut()| {
        let start = clock();
        f();
        clock() - start
    };
    for _ in 0..3 {
        time(&mut a);
        time(&mut b);
    }
    let mut turns: Vec<(f64, f64)> = (0..turns).map(|_| (time(&mut a), time(&mut b))).collect();
    let mut median = |key: fn(&(f64, f64)) -> f64| {
        turns.sort_by(|x, y| key(x).total_cmp(&key(y)));
        key(&turns[turns.len() / 2])
    };
    (median(|t| t.0), median(|t| t.1), median(|t| t.0 / t.1))
}

fn head(rows: &mut Vec<Row>) {
    let case = Case::new(IMAGENET_16);
    let exact = case.head(KeyDtype::F32);
    let fast = case.head(KeyDtype::Bf16);
    println!("# {}; {}", exact.describe(), fast.describe());
    for (batch, turns, goal, fast_goal) in [
        (1, 31, None, None),
        (32, 31, Some(2.3), None),
        (256, 15, Some(3.0), Some(8.0)),
    ] {
        let f = unit(batch, 512);
        for (name, head, goal) in [("f32", &exact, goal), ("bf16", &fast, fast_goal)] {
            let (plain, ours, ratio) = side_by_side(
                turns,
                || drop(black_box(case.formula(&f))),
                || drop(black_box(head.logits(&f).expect("logits"))),
            );
            let flop = 2.0 * batch as f64 * 17_000.0 * 512.0;
            println!(
                "# B={batch} {name}: formula {:.2} ms, head {:.2} ms, {:.0} GFLOP/s",
                plain * 1e3,
                ours * 1e3,
                flop / ours * 1e-9
            );
            rows.push(Row {
                row: format!("head {name} B={batch}: times as fast as the formula"),
                value: ratio,
                goal: match (goal, name) {
                    (None, _) => String::new(),
                    (Some(goal), "bf16") => format!(">= {goal} with AMX"),
                    (Some(goal), _) => format!(">= {goal}"),
                },
                // bfloat16's goal is AMX's; without it the figure is only told.
                ok: goal.is_none_or(|goal| ratio >= goal)
                    || (name == "bf16" && !head.describe().contains("AMX")),
            });
        }
        let want = case.formula(&f);
        for (name, head) in [("f32", &exact), ("bf16", &fast)] {
            let got = head.logits(&f).expect("logits");
            let apart = (got - &want).abs().max().double_value(&[]);
            let limit = if name == "f32" { 1e-3 } else { 1e-2 };
            rows.push(Row {
                row: format!("head {name} B={batch}: largest difference from the formula"),
                value: apart,
                goal: format!("<= {limit}"),
                ok: apart <= limit,
            });
        }
    }
    let case = Case::new(SMALL);
    let head = case.head(KeyDtype::F32);
    for batch in [1, 32] {
        let f = unit(batch, 512);
        let (plain, ours, ratio) = side_by_side(
            201,
            || drop(black_box(case.formula(&f))),
            || drop(black_box(head.logits(&f).expect("logits"))),
        );
        println!(
            "# small B={batch}: formula {:.1} us, head {:.1} us",
            plain * 1e6,
            ours * 1e6
        );
        rows.push(Row {
            row: format!("head 10 x 16 B={batch}: times as fast as the formula"),
            value: ratio,
            goal: ">= 1".into(),
            ok: ratio >= 1.0,
        });
    }
}

/// A plain PyTorch training step: dense V, autograd, AdamW.
struct Plain {
    store: nn::VarStore,
    keys: Tensor,
    optimizer: nn::Optimizer,
}

impl Plain {
    fn new(case: &Case) -> Self {
        let store = nn::VarStore::new(Device::Cpu);
        let keys = store.root().var_copy("keys", &case.keys);
        let adamw = nn::AdamW {
            wd: 0.01,
            eps: 1e-4,
            ..nn::AdamW::default()
        };
        let optimizer = adamw.build(&store, 1e-3).expect("an optimiser");
        Self {
            store,
            keys,
            optimizer,
        }
    }

    fn step(&mut self, case: &Case, f: &Tensor, labels: &Tensor) -> f64 {
        let affinity = f.matmul(&self.keys.tr());
        let one_minus: Tensor = 1.0 - affinity;
        let cache = (one_minus * -1.0).exp().matmul(&case.one_hot) * ALPHA;
        let logits = (f * 100.0).matmul(&case.text.tr()) + cache;
        let loss = logits.cross_entropy_for_logits(labels);
        self.optimizer.zero_grad();
        loss.backward();
        self.optimizer.step();
        loss.double_value(&[])
    }
}

fn finetune(rows: &mut Vec<Row>) {
    let case = Case::new(IMAGENET_16);
    let views = case.keys.unsqueeze(1);
    let linear = &case.text * 100.0;
    let set = TrainingSet {
        classes: 1000,
        views: &views,
        keys: &case.keys,
        labels: &case.labels,
        linear: Some(&linear),
        bias: None,
        class_factor: None,
        validation: None,
    };
    let options = Options::default();
    let mut trainer =
        Trainer::new(&set, &options, Device::Cpu, Backend::Automatic).expect("a trainer");
    let mut plain = Plain::new(&case);
    let order = Tensor::randperm(16_000, (Kind::Int64, Device::Cpu));
    let (mut batch, mut plain_losses) = (0, Vec::new());
    let (mut loss, mut longest) = (0.0, 0f64);
    let (plain_time, ours, ratio) = side_by_side(
        13,
        || {
            let rows = order.narrow(0, batch * 256, 256);
            batch += 1;
            let (f, labels) = (
                case.keys.index_select(0, &rows),
                case.labels.index_select(0, &rows),
            );
            plain_losses.push(plain.step(&case, &f, &labels));
        },
        || loop {
            let start = clock();
            let progress = trainer.step().expect("a step");
            longest = longest.max(clock() - start);
            if let Progress::Step(step) = progress {
                loss = step.loss;
                break;
            }
        },
    );
    let plain_loss = plain_losses.iter().sum::<f64>() / plain_losses.len() as f64;
    println!(
        "# training step: plain {:.0} ms, ours {:.0} ms, longest slice {:.0} ms; mean loss of the \
         first {} steps: plain {plain_loss:.4}, ours {loss:.4}; 20 epochs: {:.0} s",
        plain_time * 1e3,
        ours * 1e3,
        longest * 1e3,
        plain_losses.len(),
        ours * 63.0 * 20.0,
    );
    drop(plain.store);
    rows.push(Row {
        row: "fine-tuning at ImageNet-16's size: times as fast as the plain loop".into(),
        value: ratio,
        goal: ">= 4".into(),
        ok: ratio >= 4.0,
    });
}

/// 1,000 small caches, drawn at random for each picture of a batch of 32.
fn grouped(rows: &mut Vec<Row>) {
    let heads: Vec<Head> = (0..1000)
        .map(|_| Case::new(SMALL).head(KeyDtype::F32))
        .collect();
    let f = unit(32, 512);
    let all: Vec<i64> = (0..32).collect();
    let mut rng = StdRng::seed_from_u64(1);
    let mut draw = || -> Vec<usize> { (0..32).map(|_| rng.random_range(0..1000)).collect() };
    let (mixed, one, _) = side_by_side(
        201,
        || {
            let drawn = draw();
            let groups: Vec<(&Head, &[i64])> = drawn
                .iter()
                .zip(&all)
                .map(|(&h, row)| (&heads[h], std::slice::from_ref(row)))
                .collect();
            drop(black_box(grouped_logits(&f, &groups).expect("logits")));
        },
        || drop(black_box(heads[0].logits(&f).expect("logits"))),
    );
    println!(
        "# 32 of 1,000 caches: {:.0} us; one cache: {:.0} us",
        mixed * 1e6,
        one * 1e6
    );
    let milliseconds = mixed * 1e3 / 32.0;
    rows.push(Row {
        row: "32 pictures of 1,000 caches at random: ms a picture in the head".into(),
        value: milliseconds,
        goal: "<= 0.3".into(),
        ok: milliseconds <= 0.3,
    });
}

/// A million keys; it takes 4 GB, and is left out with TIPSERVE_BENCH_MILLION=0.
fn million(rows: &mut Vec<Row>) {
    if std::env::var("TIPSERVE_BENCH_MILLION").is_ok_and(|value| value == "0") {
        println!("# 1,000,000 keys: left out, as TIPSERVE_BENCH_MILLION=0 says");
        return;
    }
    let keys = unit(1_000_000, 512);
    let tensors = HeadTensors {
        classes: 1000,
        linear: None,
        bias: None,
        cache: Some((
            keys,
            Values::OneHot {
                labels: Tensor::randint(1000, [1_000_000], (Kind::Int64, Device::Cpu)),
                weight: Tensor::ones([1000], (Kind::Float, Device::Cpu)),
            },
        )),
        standardised: None,
    };
    let start = Instant::now();
    let head = Head::new(&spec(KeyDtype::Bf16), &tensors, Device::Cpu).expect("a head");
    let made = start.elapsed().as_secs_f64();
    drop(tensors);
    let f = unit(32, 512);
    let start = Instant::now();
    drop(black_box(head.logits(&f).expect("logits")));
    let served = start.elapsed().as_secs_f64();
    println!(
        "# 1,000,000 keys in bf16: {:.3} GB resident, made in {made:.1} s, B=32 in {:.0} ms",
        head.size_bytes() as f64 * 1e-9,
        served * 1e3,
    );
    let value = head.size_bytes() as f64 * 1e-9;
    rows.push(Row {
        row: "1,000,000 keys at D=512 in bf16: GB resident".into(),
        value,
        goal: "<= 1.04 (1 GB and 1 %)".into(),
        ok: value <= 1.04,
    });
}
