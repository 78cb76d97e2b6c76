//! How fast pictures are answered, as the client sees it.

use std::time::Instant;

use serde::Serialize;

use crate::{
    classify_stream::{self, Reply, StreamOptions},
    connect::Connection,
    failure::Failure,
    labelled::Labelled,
};
use tipserve_api::v1::{ClassifyOptions, ClassifyStreamConfig, RejectOptions};

/// How fast pictures were answered.
#[derive(Debug, Serialize)]
pub(super) struct Speed {
    pub(super) in_flight: usize,
    pub(super) pictures: usize,
    pub(super) pictures_per_second: f64,
    pub(super) p50_seconds: f64,
    pub(super) p99_seconds: f64,
}

impl Speed {
    /// The speed of replies that took `wall` seconds together.
    pub(super) fn of(replies: &[Reply], wall: f64, in_flight: usize) -> Self {
        let mut seconds: Vec<f64> = replies
            .iter()
            .filter(|it| it.outcome.is_ok())
            .map(|it| it.seconds)
            .collect();
        seconds.sort_by(f64::total_cmp);
        // Nearest rank.
        let at = |share: f64| {
            let rank = (share * seconds.len() as f64).ceil().max(1.0) as usize;
            seconds.get(rank - 1).copied().unwrap_or(0.0)
        };
        Self {
            in_flight,
            pictures: seconds.len(),
            pictures_per_second: seconds.len() as f64 / wall.max(1e-9),
            p50_seconds: at(0.5),
            p99_seconds: at(0.99),
        }
    }

    /// A row of the report's table.
    pub(super) fn row(&self, what: &str) -> Vec<String> {
        vec![
            what.to_owned(),
            self.pictures.to_string(),
            format!("{:.1}", self.pictures_per_second),
            format!("{:.1} ms", self.p50_seconds * 1e3),
            format!("{:.1} ms", self.p99_seconds * 1e3),
        ]
    }
}

/// Classifies the pictures through ClassifyStream, `window` of them in flight;
/// says of each whether it is of a known class where `reject` is given.
pub(super) async fn classify(
    connection: &Connection,
    version: &str,
    window: usize,
    pictures: Labelled,
    reject: Option<RejectOptions>,
) -> Result<(Vec<Reply>, f64), Failure> {
    let limit = connection.message_limit().await?;
    let items = classify_stream::items(pictures, limit);
    let config = ClassifyStreamConfig {
        cache: version.to_owned(),
        options: Some(ClassifyOptions {
            top_k: 3,
            neighbours: 3,
            reject,
            ..ClassifyOptions::default()
        }),
        ordered: true,
        priority: 0,
    };
    let options = StreamOptions {
        window,
        limit,
        time_limit: None,
    };
    let mut replies = Vec::new();
    let started = Instant::now();
    classify_stream::classify(connection, config, &options, items, |reply| {
        replies.push(reply);
        Ok(())
    })
    .await?;
    Ok((replies, started.elapsed().as_secs_f64()))
}
