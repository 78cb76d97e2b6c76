//! Classification, embedding, evaluation: a picture is of the class it names.

use std::sync::atomic::Ordering;

use std::collections::BTreeMap;

use tipserve_api::v1::{self as pb, classify_service_server::ClassifyService};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{Events, Service, seen, undecodable};

fn answer(
    version: &pb::Version,
    class: usize,
    options: &pb::ClassifyOptions,
) -> pb::Classification {
    let n = version.classes.len();
    let order = std::iter::once(class % n).chain((0..n).filter(|index| *index != class % n));
    let score = |index: usize| if index == class % n { 10.0 } else { 1.0 };
    let named = |index: usize| version.classes[index].display_name.clone();
    pb::Classification {
        version: version.name.clone(),
        top: order
            .take(if options.top_k == 0 {
                5
            } else {
                options.top_k as usize
            })
            .map(|index| pb::ClassScore {
                index: index as i32,
                display_name: named(index),
                logit: score(index),
                probability: if index == class % n {
                    0.9
                } else {
                    0.1 / (n - 1) as f32
                },
            })
            .collect(),
        logits: if options.logits {
            (0..n).map(score).collect()
        } else {
            vec![]
        },
        neighbours: (0..options.neighbours)
            .map(|rank| pb::Neighbour {
                class_indices: Vec::new(),
                example_id: format!("key/{rank}.jpg"),
                class_index: (class % n) as i32,
                display_name: named(class % n),
                similarity: 0.99 - 0.01 * rank as f32,
            })
            .collect(),
        ..Default::default()
    }
}

/// How many of the class that comes first were taken for the second.
type Confusion = BTreeMap<(usize, usize), i64>;

fn class_evaluations(version: &pb::Version, confusion: &Confusion) -> Vec<pb::ClassEvaluation> {
    let one = |(index, class): (usize, &pb::ClassInfo)| {
        let row = confusion.range((index, 0)..(index + 1, 0));
        let count: i64 = row.map(|(_, count)| count).sum();
        let right = confusion.get(&(index, index)).copied().unwrap_or(0);
        pb::ClassEvaluation {
            index: index as i32,
            display_name: class.display_name.clone(),
            count,
            accuracy: match count {
                0 => 0.0,
                _ => right as f64 / count as f64,
            },
        }
    };
    version.classes.iter().enumerate().map(one).collect()
}

#[tonic::async_trait]
impl ClassifyService for Service {
    type ClassifyStreamStream = Events<pb::ClassifyStreamResponse>;

    async fn classify_stream(
        &self,
        request: Request<Streaming<pb::ClassifyStreamRequest>>,
    ) -> Result<Response<Self::ClassifyStreamStream>, Status> {
        use pb::{classify_stream_request::Payload, item_result::Outcome};
        let mut incoming = request.into_inner();
        let Some(Payload::Config(config)) = incoming.message().await?.and_then(|it| it.payload)
        else {
            return Err(Status::invalid_argument("the config must come first"));
        };
        let version = self.locked().version(&config.cache)?.clone();
        let options = config.options.unwrap_or_default();
        self.locked().configs.push(config);
        let this = self.arc();
        let (answers, stream) = mpsc::channel(4);
        tokio::spawn(async move {
            let mut sequence = 0;
            while let Ok(Some(message)) = incoming.message().await {
                let Some(Payload::Items(batch)) = message.payload else {
                    return;
                };
                let count = batch.items.len();
                let now = this.outstanding.fetch_add(count, Ordering::SeqCst) + count;
                this.most_outstanding.fetch_max(now, Ordering::SeqCst);
                // Lets a client that sends too much do so.
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                let mut results: Vec<_> = batch
                    .items
                    .into_iter()
                    .map(|item| {
                        let outcome = match seen(item.input.as_ref()) {
                            Ok(class) => Outcome::Classification(answer(&version, class, &options)),
                            Err(message) => Outcome::Error(undecodable(message)),
                        };
                        sequence += 1;
                        pb::ItemResult {
                            id: item.id,
                            sequence: sequence - 1,
                            outcome: Some(outcome),
                        }
                    })
                    .collect();
                if this.behaviour.shuffle {
                    results.reverse();
                }
                for result in results {
                    this.outstanding.fetch_sub(1, Ordering::SeqCst);
                    let answer = pb::ClassifyStreamResponse {
                        results: vec![result],
                    };
                    if answers.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn classify(
        &self,
        _: Request<pb::ClassifyRequest>,
    ) -> Result<Response<pb::ClassifyResponse>, Status> {
        Err(Status::unimplemented("the command line streams"))
    }

    async fn embed(
        &self,
        request: Request<pb::EmbedRequest>,
    ) -> Result<Response<pb::EmbedResponse>, Status> {
        use pb::embed_result::Outcome;
        let request = request.into_inner();
        let one = |outcome| pb::EmbedResult {
            outcome: Some(outcome),
            token_count: 0,
        };
        let unit = |at: usize| {
            let values = (0..8)
                .map(|i| if i == at % 8 { 1.0 } else { 0.0 })
                .collect();
            Outcome::Embedding(pb::Embedding { values })
        };
        let inputs = request.inputs.iter().map(|input| match seen(Some(input)) {
            Ok(class) => one(unit(class)),
            Err(message) => one(Outcome::Error(undecodable(message))),
        });
        let texts = request.texts.iter().map(|text| one(unit(text.len())));
        Ok(Response::new(pb::EmbedResponse {
            inputs: inputs.collect(),
            texts: texts.collect(),
        }))
    }

    async fn evaluate(
        &self,
        request: Request<Streaming<pb::EvaluateRequest>>,
    ) -> Result<Response<pb::EvaluateResponse>, Status> {
        use pb::evaluate_request::Payload;
        let mut incoming = request.into_inner();
        let Some(Payload::Config(config)) = incoming.message().await?.and_then(|it| it.payload)
        else {
            return Err(Status::invalid_argument("the config must come first"));
        };
        let versions = config
            .caches
            .iter()
            .map(|name| self.locked().version(name).cloned())
            .collect::<Result<Vec<_>, _>>()?;
        let n = versions[0].classes.len();
        let mut confusion = Confusion::new();
        let mut rejected = Vec::new();
        while let Some(Ok(message)) = incoming.next().await {
            let Some(Payload::Items(batch)) = message.payload else {
                continue;
            };
            for item in batch.items {
                match seen(item.input.as_ref()) {
                    Ok(class) => {
                        let place = (item.class_index as usize, class % n);
                        *confusion.entry(place).or_default() += 1;
                    }
                    Err(message) => rejected.push(pb::RejectedExample {
                        example_id: item.id,
                        code: 3,
                        message,
                        reason: "PICTURE_UNDECODABLE".into(),
                    }),
                }
            }
        }
        let count: i64 = confusion.values().sum();
        let diagonal = confusion.iter().filter(|((i, j), _)| i == j);
        let right: i64 = diagonal.map(|(_, count)| count).sum();
        let evaluations = versions
            .iter()
            .map(|version| pb::Evaluation {
                multi_label: None,
                version: version.name.clone(),
                count,
                top1: right as f64 / count as f64,
                top5: 1.0,
                zero_shot_top1: (version.version == 1).then_some(1.0 / n as f64),
                cross_entropy: 0.5,
                unknown: None,
                expected_calibration_error: 0.0625,
                classes: class_evaluations(version, &confusion),
                confusion: if self.behaviour.no_confusion {
                    Vec::new()
                } else {
                    (0..n * n)
                        .map(|at| confusion.get(&(at / n, at % n)).copied().unwrap_or(0))
                        .collect()
                },
            })
            .collect();
        let rejected_count = rejected.len() as i64;
        Ok(Response::new(pb::EvaluateResponse {
            evaluations,
            rejected,
            rejected_count,
        }))
    }

    async fn get_server_info(
        &self,
        _: Request<pb::GetServerInfoRequest>,
    ) -> Result<Response<pb::ServerInfo>, Status> {
        Ok(Response::new(pb::ServerInfo {
            version: "0.0.0".into(),
            bundle: Some(pb::BundleInfo {
                name: "fake".into(),
                fingerprint: "f00d".into(),
                width: 8,
                image_size: 224,
                resize_to: 256,
                interpolation: "bilinear".into(),
                has_image_encoder: true,
                has_text_encoder: true,
                logit_scale: 100.0,
                ..Default::default()
            }),
            device: "cpu".into(),
            dtype: "float32".into(),
            text_dtype: "float32".into(),
            limits: [(
                "max_message_bytes".to_owned(),
                self.behaviour.message_bytes as i64,
            )]
            .into(),
            ..Default::default()
        }))
    }
}
