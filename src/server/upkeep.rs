//! What must be done again and again while a server runs.

use std::{sync::Arc, time::Duration};

use metrics_exporter_prometheus::PrometheusHandle;
use tonic_health::server::HealthReporter;

use super::{memory::Memory, set_health};
use crate::rpc::Context;

/// How often the metrics' histograms are folded; without it they grow where
/// nobody scrapes (metrics-rs 467). And how often health and memory are looked
/// at.
const OFTEN: Duration = Duration::from_secs(5);
/// How often what dead writers left behind is removed from the store.
const SWEEP: Duration = Duration::from_secs(3600);

/// Runs until it is aborted.
pub(super) async fn upkeep(
    context: Arc<Context>,
    metrics: PrometheusHandle,
    health: HealthReporter,
) {
    let mut often = tokio::time::interval(OFTEN);
    let mut sweep = tokio::time::interval(SWEEP);
    let mut healthy = true;
    let mut memory = Memory::at_start();
    let mut idle = false;
    loop {
        tokio::select! {
            _ = often.tick() => {
                metrics.run_upkeep();
                if healthy && !context.catalog.bundles().are_healthy() {
                    healthy = false;
                    set_health(&health, false).await;
                }
                let was_idle = std::mem::replace(&mut idle, context.catalog.bundles().items() == 0);
                let resting = idle && was_idle;
                // A panic in it, if there were one, costs a tick.
                if let Ok(settled) = tokio::task::spawn_blocking(move || memory.settle(resting)).await {
                    memory = settled;
                }
            }
            _ = sweep.tick() => if let Err(error) = context.catalog.tidy().await {
                tracing::warn!(%error, "could not sweep the store");
            }
        }
    }
}
