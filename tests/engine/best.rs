//! Items that want the best classes, whole logits, neighbours and features of
//! one head in one batch: each gets its own, wherever the best are chosen.

use std::sync::Arc;

use rand::{Rng as _, rngs::StdRng};
use tch::{Device, Kind, Tensor};
use tip_adapter::{
    best::TopK,
    head::{Head, HeadTensors, Values},
};
use tip_spec::{ClassBalance, HeadSpec, KeyDtype, Method, Selection, SelectionSource};
use tipserve_engine::{
    Content, EngineSettings, JobOutput, Scores, ScoresRequest, TopKBackend, Work,
};

use crate::tagging::{Item, dice, settings, start};

const WIDTH: i64 = 8;

fn head(classes: i64) -> Arc<Head> {
    let spec = HeadSpec {
        method: Method::TipAdapter,
        alpha: 1.0,
        beta: 5.5,
        lambda: 0.0,
        logit_scale: 10.0,
        class_balance: ClassBalance::Sum,
        temperature: 1.0,
        key_dtype: KeyDtype::F32,
        standardised: None,
        selection: Selection {
            source: SelectionSource::Given,
            example_count: 0,
            score: String::new(),
            grid: String::new(),
            candidates: Vec::new(),
            reason: String::new(),
        },
        unseen: None,
        unlabelled: None,
    };
    let float = (Kind::Float, Device::Cpu);
    let tensors = HeadTensors {
        classes: classes as usize,
        // Every other class twice: many logits are equal.
        linear: Some(
            Tensor::randn([(classes + 1) / 2, WIDTH], float)
                .repeat([2, 1])
                .narrow(0, 0, classes)
                .contiguous(),
        ),
        bias: None,
        cache: Some((
            Tensor::randn([2 * classes, WIDTH], float),
            Values::OneHot {
                labels: Tensor::arange(2 * classes, (Kind::Int64, Device::Cpu)).remainder(classes),
                weight: Tensor::zeros([classes], float),
            },
        )),
        standardised: None,
    };
    Arc::new(Head::new(&spec, &tensors, Device::Cpu).expect("a head"))
}

/// What one item asks for, of the head of that number.
struct Want {
    unit: Vec<f32>,
    head: usize,
    wanted: ScoresRequest,
    neighbours: usize,
    embedding: bool,
}

impl Want {
    fn random(rng: &mut StdRng, heads: usize) -> Self {
        Self {
            unit: (0..WIDTH).map(|_| rng.random_range(-1.0..1.0)).collect(),
            head: rng.random_range(0..heads),
            wanted: if rng.random_ratio(1, 40) {
                ScoresRequest::Logits
            } else {
                ScoresRequest::Best(TopK {
                    classes: rng.random_range(1..400),
                    temperature: rng.random_range(0.5..2.0),
                })
            },
            neighbours: rng.random_range(0..4),
            embedding: rng.random(),
        }
    }

    fn item(&self, heads: &[Arc<Head>]) -> Item {
        Item {
            content: Content::Embedding(self.unit.clone()),
            work: Work::Classify {
                head: heads[self.head].clone(),
                wanted: self.wanted,
                neighbours: self.neighbours,
                embedding: self.embedding,
            },
            ..Item::of(0)
        }
    }
}

#[test]
fn items_of_one_batch_get_what_each_wants() {
    let mut rng = dice();
    tch::manual_seed(rng.random());
    let heads = [head(1), head(10), head(301)];
    let wants: Vec<Want> = (0..60)
        .map(|_| Want::random(&mut rng, heads.len()))
        .collect();
    let run = |top_k_backend| -> Vec<JobOutput> {
        let settings = EngineSettings {
            top_k_backend,
            ..settings(1, 64)
        };
        let (engine, _) = start(settings, false);
        let hold = engine.hold_until(wants.len());
        let answers: Vec<_> = (wants.iter())
            .map(|want| want.item(&heads).submit(&engine))
            .collect();
        let outcomes = (answers.into_iter())
            .map(|answer| answer.blocking_recv().expect("answered").expect("a head"))
            .collect();
        drop(hold);
        outcomes
    };
    let (host, there) = (run(TopKBackend::Host), run(TopKBackend::Operators));
    for ((want, host), there) in wants.iter().zip(&host).zip(&there) {
        let classes = heads[want.head].classes();
        assert_eq!(host.scores.logits().len(), classes);
        match want.wanted {
            ScoresRequest::Logits => assert_eq!(there.scores.logits(), host.scores.logits()),
            ScoresRequest::Best(top_k) => {
                let (host, best) = (host.scores.best(top_k), there.scores.best(top_k));
                assert_eq!(best.len(), top_k.classes.min(classes));
                for (host, best) in host.iter().zip(&best) {
                    assert_eq!((host.class, host.logit), (best.class, best.logit));
                    let apart = (host.probability - best.probability).abs();
                    assert!(apart <= 1e-9, "{host:?} {best:?}");
                }
                let whole = wants
                    .iter()
                    .any(|it| it.head == want.head && it.wanted == ScoresRequest::Logits);
                if !whole {
                    assert!(matches!(there.scores, Scores::Best(_)));
                }
            }
        }
        assert_eq!(host.neighbours, there.neighbours);
        assert_eq!(there.neighbours.len(), want.neighbours.min(2 * classes));
        for outcome in [host, there] {
            let unit = outcome
                .feature
                .as_ref()
                .map(|feature| feature.unit.to_vec());
            assert_eq!(unit, want.embedding.then(|| want.unit.clone()));
        }
    }
}
