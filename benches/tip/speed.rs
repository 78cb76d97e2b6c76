//! The head's speed, side by side with the formula as a user would write it in
//! PyTorch, in one process and on the same threads. The two take turns, and
//! the ratio is the median of the turns' ratios, so that other work on the
//! machine meets both.

use std::{hint::black_box, time::Instant};

use tch::{Device, Kind, Tensor};
use tipserve::tip::{
    head::{Head, HeadTensors, Values},
    spec::{ClassBalance, HeadSpec, KeyDtype, Method, Selection, SelectionSource},
};

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

/// All rows.
pub fn rows() -> Vec<Row> {
    tch::manual_seed(1);
    let mut rows = Vec::new();
    head(&mut rows);
    rows
}

fn unit(rows: i64, width: i64) -> Tensor {
    let x = Tensor::randn([rows, width], (Kind::Float, Device::Cpu));
    let norm = x.square().sum_dim_intlist([1i64].as_slice(), true, Kind::Float).sqrt();
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
        selection: Selection {
            source: SelectionSource::Given,
            example_count: 0,
            score: String::new(),
            grid: String::new(),
            candidates: Vec::new(),
            reason: String::new(),
        },
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
        let labels = Tensor::arange(size.keys, (Kind::Int64, Device::Cpu))
            .remainder(size.classes);
        Self {
            text: unit(size.classes, size.width),
            // Around a centre per class, as features are.
            keys: {
                let centres = unit(size.classes, size.width).index_select(0, &labels);
                let x = centres + unit(size.keys, size.width) * 0.8;
                let norm = x.square().sum_dim_intlist([1i64].as_slice(), true, Kind::Float).sqrt();
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
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut now) };
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
    for (batch, turns, goal, fast_goal) in
        [(1, 31, None, None), (32, 31, Some(2.3), None), (256, 15, Some(3.0), Some(8.0))]
    {
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
                goal: goal.map_or(String::new(), |goal| format!(">= {goal}")),
                ok: goal.is_none_or(|goal| ratio >= goal),
            });
        }
        let want = case.formula(&f);
        for (name, head) in [("f32", &exact), ("bf16", &fast)] {
            let got = head.logits(&f).expect("logits");
            println!("# B={batch} {name}: largest difference {:.2e}", (got - &want).abs().max().double_value(&[]));
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
        println!("# small B={batch}: formula {:.1} us, head {:.1} us", plain * 1e6, ours * 1e6);
        rows.push(Row {
            row: format!("head 10 x 16 B={batch}: times as fast as the formula"),
            value: ratio,
            goal: ">= 1".into(),
            ok: ratio >= 1.0,
        });
    }
}
