//! Which batches are replayed, and what happens to those that cannot be: with
//! a recorder that has no CUDA, and a clock of its own.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use tch::{Device, Kind, Tensor};
use tipserve_clip::{
    EncodeError, GraphsChoice, Size,
    cuda::{Graph, Stream},
    graphs::{Graphs, Recorder, Recording, SIZES, Verdict},
};

const SIDE: i64 = 2;

/// A picture's features: the sums of its channels, and one.
fn features(staged: &Tensor) -> Tensor {
    let sums =
        staged
            .to_kind(Kind::Float)
            .sum_dim_intlist([1i64, 2].as_slice(), false, Kind::Float);
    let ones = Tensor::ones([staged.size()[0], 1], (Kind::Float, Device::Cpu));
    Tensor::cat(&[sums, ones], 1)
}

fn refusal(reason: &str) -> EncodeError {
    EncodeError::Torch {
        encoder: "image",
        reason: reason.to_owned(),
    }
}

/// What goes wrong, and with batches of which size.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// A batch of the size cannot be recorded.
    Refuses(usize),
    /// The graph does not run.
    Fails(usize),
    /// The graph gives features that are not the plain ones.
    Lies(usize),
    /// It gives what it gave first, whatever comes.
    Sticks(usize),
    /// The graph gives features that are not numbers.
    NotANumber(usize),
    /// Rows are wrong where not all of them are used.
    LiesInPart(usize),
}

/// Seconds of a batch without a graph and with one.
type Times = fn(usize) -> (f64, f64);

struct Fake {
    fault: Fault,
    times: Times,
    /// Seconds that have gone by.
    clock: Rc<Cell<f64>>,
    /// The sizes that were run: none without a graph, or that of the graph.
    runs: Runs,
    /// Set when graphs are to fail from then on.
    broken: Broken,
}

type Runs = std::sync::Arc<std::sync::Mutex<Vec<Option<usize>>>>;
type Broken = std::sync::Arc<std::sync::Mutex<Option<&'static str>>>;

impl Fake {
    fn new(fault: Fault, times: Times) -> Fake {
        Fake {
            fault,
            times,
            clock: Rc::default(),
            runs: Runs::default(),
            broken: Broken::default(),
        }
    }

    /// How the last batch was run.
    fn last(&self) -> Option<usize> {
        *self.runs.lock().unwrap().last().expect("a batch")
    }
}

#[derive(Debug)]
struct FakeGraph {
    size: usize,
    fault: Fault,
    runs: Runs,
    broken: Broken,
    first: std::sync::Mutex<RefCell<Option<Tensor>>>,
}

impl Recorder for Fake {
    fn plain(&self, staged: &Tensor) -> Result<Tensor, EncodeError> {
        let batch = staged.size()[0] as usize;
        self.clock.set(self.clock.get() + (self.times)(batch).0);
        self.runs.lock().unwrap().push(None);
        Ok(features(staged))
    }

    fn record(&self, size: usize) -> Result<Box<dyn Recording>, EncodeError> {
        if self.fault == Fault::Refuses(size) {
            return Err(refusal(
                "operation not permitted when stream is capturing\nFor debugging consider …",
            ));
        }
        Ok(Box::new(FakeGraph {
            size,
            fault: self.fault,
            runs: self.runs.clone(),
            broken: self.broken.clone(),
            first: std::sync::Mutex::default(),
        }))
    }

    fn seconds(
        &self,
        run: &mut dyn FnMut() -> Result<Tensor, EncodeError>,
    ) -> Result<f64, EncodeError> {
        let before = self.clock.get();
        let _features = run()?;
        if let Some(size) = self.last() {
            self.clock.set(self.clock.get() + (self.times)(size).1);
        }
        Ok(self.clock.get() - before)
    }
}

impl Recording for FakeGraph {
    fn replay(&self, staged: &Tensor) -> Result<Tensor, EncodeError> {
        let rows = staged.size()[0];
        assert!(rows as usize <= self.size);
        if let Some(reason) = *self.broken.lock().unwrap() {
            return Err(refusal(reason));
        }
        self.runs.lock().unwrap().push(Some(self.size));
        let right = features(staged);
        let first = self.first.lock().unwrap();
        let first = first
            .borrow_mut()
            .get_or_insert_with(|| right.copy())
            .copy();
        Ok(match self.fault {
            Fault::Fails(size) if size == self.size => {
                return Err(refusal("an illegal memory access was encountered"));
            }
            // A cosine of 0.9999 or so.
            Fault::Lies(size) if size == self.size => {
                let length = right.norm_scalaropt_dim(2.0, [1i64].as_slice(), true);
                &right + length * 0.01 * Tensor::from_slice(&[1f32, -1.0, 0.0, 0.0])
            }
            Fault::Sticks(size) if size == self.size => first.narrow(0, 0, rows),
            Fault::NotANumber(size) if size == self.size => right * f64::NAN,
            Fault::LiesInPart(size) if size == self.size && rows < size as i64 => right.neg(),
            _ => right,
        })
    }
}

fn staged(rows: i64) -> Tensor {
    Tensor::randint(256, [rows, SIDE, SIDE, 3], (Kind::Uint8, Device::Cpu))
}

/// Launches cost 5, a picture 1; graphs have no launches.
const LAUNCHES: Times = |n| (5.0f64.max(n as f64), n as f64 + 0.5);

fn recorded(fake: &Fake, sizes: &[usize]) -> (Graphs, Vec<(usize, Verdict)>) {
    Graphs::record(fake, sizes, Size::square(SIDE as u32))
}

#[test]
fn sizes_that_are_right_and_quicker_are_replayed() {
    let fake = Fake::new(Fault::None, LAUNCHES);
    let (mut graphs, verdicts) = recorded(&fake, &[8, 1, 2, 4, 4, 0]);
    let sizes: Vec<usize> = verdicts.iter().map(|(size, _)| *size).collect();
    assert_eq!(sizes, [1, 2, 4, 8]);
    let of = |wanted: usize| {
        let found = verdicts.iter().find(|(size, _)| *size == wanted);
        found.expect("judged").1.clone()
    };
    for (size, plain, replayed) in [(1, 5.0, 1.5), (2, 5.0, 2.5), (4, 5.0, 4.5)] {
        assert_eq!(of(size), Verdict::Replayed { plain, replayed });
    }
    let (plain, replayed) = (8.0, 8.5);
    assert_eq!(of(8), Verdict::NoQuicker { plain, replayed });
    // A batch of 3 takes 5 without a graph, and 4.5 in one of 4.
    for (batch, size) in [(1, Some(1)), (2, Some(2)), (3, Some(4)), (4, Some(4))] {
        let input = staged(batch);
        let got = graphs.encode(&input, &fake).expect("features");
        assert_eq!(got, features(&input));
        assert_eq!(fake.last(), size, "a batch of {batch}");
        assert_eq!(graphs.size_for(batch as usize), size);
    }
    for batch in [5, 8, 9, 100] {
        let input = staged(batch);
        assert_eq!(graphs.encode(&input, &fake).unwrap(), features(&input));
        assert_eq!(fake.last(), None, "a batch of {batch}");
    }
}

/// Padding costs the pictures that are not there.
#[test]
fn a_batch_is_padded_only_where_that_is_sooner() {
    // A picture costs 1 either way; launches cost a quarter.
    let fake = Fake::new(Fault::None, |n| (n as f64 + 0.25, n as f64));
    let (graphs, _) = recorded(&fake, &[1, 8]);
    assert_eq!(graphs.size_for(8), Some(8));
    assert_eq!(graphs.size_for(1), Some(1));
    for batch in 2..8 {
        assert_eq!(graphs.size_for(batch), None, "a batch of {batch}");
    }
    // Without a smaller size to go by, in proportion.
    let fake = Fake::new(Fault::None, LAUNCHES);
    let (graphs, _) = recorded(&fake, &[4]);
    assert_eq!(graphs.size_for(1), None);
    assert_eq!(graphs.size_for(4), Some(4));
}

#[test]
fn what_is_wrong_is_not_used_and_said() {
    for fault in [
        Fault::Lies(2),
        Fault::Sticks(2),
        Fault::NotANumber(2),
        Fault::LiesInPart(2),
    ] {
        let fake = Fake::new(fault, LAUNCHES);
        let (graphs, verdicts) = recorded(&fake, &[1, 2, 4]);
        let (_, verdict) = &verdicts[1];
        assert!(
            matches!(verdict, Verdict::Differs { .. }),
            "{fault:?}: {verdict:?}"
        );
        assert!(verdict.to_string().contains("cosine"), "{verdict}");
        // The others are.
        assert_eq!(graphs.size_for(1), Some(1));
        assert_eq!(graphs.size_for(4), Some(4));
        // Padded, it pays still.
        assert_eq!(graphs.size_for(2), Some(4), "{fault:?}");
    }
}

#[test]
fn after_a_refusal_nothing_more_is_recorded() {
    for fault in [Fault::Refuses(2), Fault::Fails(2)] {
        let fake = Fake::new(fault, LAUNCHES);
        let (mut graphs, verdicts) = recorded(&fake, &[1, 2, 4]);
        assert!(matches!(verdicts[0].1, Verdict::Replayed { .. }));
        let reason = |at: usize| match &verdicts[at].1 {
            Verdict::Refused { reason } => reason.clone(),
            other => panic!("{fault:?}: {other:?}"),
        };
        assert!(reason(1).contains("capturing") || reason(1).contains("illegal"));
        assert!(!reason(1).contains('\n'), "{}", reason(1));
        assert!(
            reason(2).contains("a batch of 2 was refused"),
            "{}",
            reason(2)
        );
        let input = staged(2);
        assert_eq!(graphs.encode(&input, &fake).unwrap(), features(&input));
        assert_eq!(fake.last(), None);
    }
}

#[test]
fn a_graph_that_fails_later_is_given_up() {
    let fake = Fake::new(Fault::None, LAUNCHES);
    let (mut graphs, _) = recorded(&fake, &[1, 2]);
    let input = staged(2);
    // Memory is for the stream pool to find; the graph stays.
    *fake.broken.lock().unwrap() = Some("CUDA out of memory. Tried to allocate 2.00 MiB");
    let error = graphs.encode(&input, &fake).expect_err("no memory");
    assert!(error.is_out_of_memory(), "{error}");
    assert_eq!(graphs.size_for(2), Some(2));
    *fake.broken.lock().unwrap() = Some("invalid argument");
    assert_eq!(graphs.encode(&input, &fake).unwrap(), features(&input));
    assert_eq!(fake.last(), None);
    *fake.broken.lock().unwrap() = None;
    for batch in [1, 2] {
        assert_eq!(graphs.size_for(batch), None);
    }
}

#[test]
fn no_graphs_are_an_empty_set() {
    let fake = Fake::new(Fault::None, LAUNCHES);
    let mut graphs = Graphs::default();
    let input = staged(3);
    assert_eq!(graphs.encode(&input, &fake).unwrap(), features(&input));
    assert_eq!(fake.last(), None);
    assert!(SIZES.is_sorted());
}

#[test]
fn graphs_are_asked_for_by_name() {
    assert_eq!("off".parse(), Ok(GraphsChoice::Off));
    assert_eq!("Auto".parse(), Ok(GraphsChoice::Auto));
    let error = "on".parse::<GraphsChoice>().expect_err("not a choice");
    assert!(error.to_string().contains("off or auto"), "{error}");
    assert_eq!(GraphsChoice::default(), GraphsChoice::Off);
}

/// Without CUDA's half of torch its symbols are missed by name.
#[test]
fn a_torch_without_cuda_says_that_it_has_no_graphs() {
    if tch::Cuda::is_available() {
        println!("skipped: this machine has CUDA");
        return;
    }
    let reason = Graph::available().expect_err("no CUDA");
    assert!(reason.contains("this torch has no"), "{reason}");
    assert!(Stream::new(Device::Cuda(0)).is_err());
}
