//! What the examples of a cache say, made up; suggestions in the order of the
//! pictures' classes.

use tipserve_api::v1::{self as pb, analysis_service_server::AnalysisService};
use tonic::{Request, Response, Status, Streaming};

use super::{Service, seen};

#[tonic::async_trait]
impl AnalysisService for Service {
    async fn get_drift(
        &self,
        request: Request<pb::GetDriftRequest>,
    ) -> Result<Response<pb::Drift>, Status> {
        Ok(Response::new(pb::Drift {
            version: format!("{}/versions/1", request.into_inner().cache),
            ..Default::default()
        }))
    }

    async fn suggest_examples(
        &self,
        request: Request<Streaming<pb::SuggestExamplesRequest>>,
    ) -> Result<Response<pb::SuggestExamplesResponse>, Status> {
        use pb::suggest_examples_request::Payload;
        let mut requests = request.into_inner();
        let mut config = pb::SuggestExamplesConfig::default();
        let mut pool = Vec::new();
        let mut answer = pb::SuggestExamplesResponse::default();
        while let Some(request) = requests.message().await? {
            match request.payload {
                Some(Payload::Config(given)) => config = given,
                Some(Payload::Items(batch)) => {
                    for item in batch.items {
                        let sequence = answer.received as u64;
                        answer.received += 1;
                        match seen(item.input.as_ref()) {
                            Ok(class) => pool.push((class, sequence, item.id)),
                            Err(message) => answer.rejected.push(pb::RejectedExample {
                                example_id: item.id,
                                code: 3,
                                message,
                                reason: "PICTURE_UNDECODABLE".to_owned(),
                            }),
                        }
                    }
                }
                None => {}
            }
        }
        pool.sort();
        answer.distinct_count = pool.len() as i64;
        let suggestions = pool.into_iter().take(config.count as usize);
        answer.suggestions = suggestions
            .map(|(class, sequence, id)| pb::Suggestion {
                id,
                sequence,
                score: 1.0 / (1.0 + class as f64),
                reason: pb::suggestion::Reason::Typical.into(),
                cluster_size: 7,
                duplicate_ids: vec!["other.jpg".to_owned()],
                duplicate_count: 1,
                ..Default::default()
            })
            .collect();
        answer.rejected_count = answer.rejected.len() as i64;
        answer.strategy = match config.strategy() {
            pb::suggest_examples_config::Strategy::Unspecified => {
                pb::suggest_examples_config::Strategy::Typical.into()
            }
            asked => asked.into(),
        };
        answer.reason = "Typical pictures, as nothing is labelled yet.".to_owned();
        answer.version = config.cache;
        Ok(Response::new(answer))
    }

    async fn analyze_version(
        &self,
        request: Request<pb::AnalyzeVersionRequest>,
    ) -> Result<Response<pb::AnalyzeVersionResponse>, Status> {
        let request = request.into_inner();
        let version = self.locked().version(&request.cache)?.clone();
        let name = |index: usize| {
            let class = version.classes.get(index);
            class.map_or_else(String::new, |class| class.display_name.clone())
        };
        let classes = version.classes.iter().map(|class| pb::ClassAnalysis {
            precision_threshold: None,
            index: class.index,
            display_name: class.display_name.clone(),
            example_count: class.example_count,
            scored_count: class.example_count,
            accuracy: 0.75,
            precision: 0.5,
            expected_gain: 0.125,
        });
        let suspect = pb::SuspectExample {
            example_id: "cat/007.jpg".to_owned(),
            class_index: 0,
            display_name: name(0),
            probability: 0.02,
            suggested: Some(pb::ClassScore {
                index: 1,
                display_name: name(1),
                logit: 4.0,
                probability: 0.98,
            }),
        };
        Ok(Response::new(pb::AnalyzeVersionResponse {
            version: version.name.clone(),
            method: pb::Method::Stack.into(),
            advice: "Look at the labels of 1 examples first.".to_owned(),
            example_count: 32,
            scored_count: 30,
            accuracy: 0.75,
            accuracy_error: 0.08,
            cross_entropy: 0.5,
            expected_calibration_error: 0.03,
            curve: vec![pb::LearningCurvePoint {
                shots: 1,
                accuracy: 0.5,
                low: 0.4,
                high: 0.6,
                draws: request.draws,
            }],
            forecast: Some(pb::LearningForecast {
                shots: 32,
                accuracy: 0.875,
                low: 0.8,
                high: 0.9,
            }),
            classes: classes.collect(),
            confusion: vec![12, 3, 4, 11],
            confused: vec![pb::ConfusedClasses {
                index: 1,
                display_name: name(1),
                other_index: 0,
                other_display_name: name(0),
                count: 4,
                reverse_count: 3,
            }],
            suspects: vec![suspect.clone()],
            suspect_count: 1,
            misclassified: vec![suspect],
            traffic: Some(traffic(name(1))),
            duplicates: vec![pb::DuplicatePair {
                example_id: "cat/001.jpg".to_owned(),
                display_name: name(0),
                other_example_id: "cat/002.jpg".to_owned(),
                other_display_name: name(0),
                similarity: 1.0,
                exact: true,
                ..Default::default()
            }],
            duplicate_count: 1,
            duplicate_similarity: 0.975,
            ..Default::default()
        }))
    }
}

/// Enough items, and one example of the second class that nothing came near.
fn traffic(second_class: String) -> pb::ExampleTraffic {
    pb::ExampleTraffic {
        since: Some(prost_types::Timestamp::default()),
        item_count: 400,
        enough_count: 320,
        unmatched_count: Some(12),
        unmatched: vec![pb::UnmatchedExample {
            example_id: "dog/003.jpg".to_owned(),
            class_index: 1,
            display_name: second_class,
        }],
    }
}
