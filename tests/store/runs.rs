//! Records of fine-tuning runs outlive the servers that wrote them.

use std::{fs, sync::Arc};

use tipserve_store::{
    MAX_RUNS_KEPT, RunError, RunProgress, RunRecord, RunState, Store, StoreError, StoreOptions,
};

use crate::{
    faulty::{Fault, Faulty},
    sample::{self, id, number},
};

fn queued(run: &str) -> RunRecord {
    let start = chrono::DateTime::UNIX_EPOCH;
    RunRecord::queued(run.into(), "server-1".into(), (id("x"), number(3)), start)
}

#[tokio::test]
async fn a_run_is_found_again_by_another_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    let mut run = store
        .write_run(&queued("5e-00000001"))
        .await
        .expect("written");
    run.state = RunState::Running;
    run.progress = Some(RunProgress {
        epoch: 2,
        epochs: 20,
        step: 7,
        steps: 80,
        loss: Some(0.5),
        ..RunProgress::default()
    });
    let run = store.write_run(&run).await.expect("written");
    let other = sample::local(folder.path()).await;
    let found = other.run("5e-00000001").await.expect("there");
    assert_eq!(found.record, run);
    let now = other.storage_time().await.expect("tells");
    assert!(found.written <= now);
    assert_eq!(other.unfinished_runs().await.expect("lists"), [found]);

    let mut ended = run.clone();
    ended.state = RunState::Failed;
    ended.end_time = Some(chrono::DateTime::UNIX_EPOCH);
    ended.error = Some(RunError {
        code: 13,
        reason: "INTERNAL".into(),
        message: "the loss is not finite".into(),
    });
    let ended = other.write_run(&ended).await.expect("written");
    assert_eq!(store.run("5e-00000001").await.expect("there").record, ended);
    assert_eq!(store.unfinished_runs().await.expect("lists"), []);

    // The first server was only slow: the run is not its own any more.
    let late = store.write_run(&run).await;
    assert!(matches!(late, Err(StoreError::Conflict { .. })), "{late:?}");
    assert_eq!(store.run("5e-00000001").await.expect("there").record, ended);
}

#[tokio::test]
async fn runs_are_listed_newest_first_in_pages() {
    let faulty = Faulty::new(Fault::None);
    let store = Store::over(Arc::new(faulty.clone()), StoreOptions::default());
    for i in 0..25 {
        let mut run = queued(&format!("5e-{i:08}"));
        if i % 5 == 0 {
            run.cache = id("y");
        }
        let run = store.write_run(&run).await.expect("written");
        store.write_run(&run).await.expect("written");
    }
    let before = faulty.lists.load(std::sync::atomic::Ordering::SeqCst);
    let (mut seen, mut last) = (Vec::new(), None::<String>);
    loop {
        let of_x = |run: &RunRecord| run.cache == id("x");
        let page = store
            .list_runs(of_x, last.as_deref(), 7)
            .await
            .expect("lists");
        let Some(end) = page.last() else { break };
        last = Some(end.record.run.clone());
        seen.extend(page.into_iter().map(|run| run.record.run));
    }
    let expected: Vec<String> = (0..25)
        .rev()
        .filter(|i| i % 5 != 0)
        .map(|i| format!("5e-{i:08}"))
        .collect();
    assert_eq!(seen, expected);
    let lists = faulty.lists.load(std::sync::atomic::Ordering::SeqCst) - before;
    assert_eq!(lists, 4, "one listing a page");
}

#[tokio::test]
async fn a_run_that_is_not_there_is_not_found_whatever_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    for odd in ["5e-1", "", "../caches", "a/b", "A", "ž", &"x".repeat(64)] {
        let error = store.run(odd).await.expect_err(odd);
        assert!(
            matches!(error, StoreError::NotFound { .. }),
            "{odd}: {error}"
        );
        if odd != "5e-1" {
            assert!(store.write_run(&queued(odd)).await.is_err(), "{odd}");
        }
    }
}

#[tokio::test]
async fn a_damaged_record_hides_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample::local(folder.path()).await;
    for run in ["5e-1", "5e-2", "5e-3"] {
        store.write_run(&queued(run)).await.expect("written");
    }
    fs::write(folder.path().join("runs/5e-2/00000001.json"), b"{").expect("written");
    let error = store.run("5e-2").await.expect_err("damaged");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    let listed = store.list_runs(|_| true, None, 10).await.expect("lists");
    assert_eq!(listed.len(), 2);
}

#[tokio::test]
async fn a_sweep_keeps_the_newest_runs() {
    let faulty = Faulty::new(Fault::None);
    let options = StoreOptions {
        leftover_age: std::time::Duration::ZERO,
        ..StoreOptions::default()
    };
    let store = Store::over(Arc::new(faulty), options);
    for i in 0..MAX_RUNS_KEPT + 3 {
        store
            .write_run(&queued(&format!("5e-{i:08}")))
            .await
            .expect("written");
    }
    let swept = store.sweep().await.expect("sweeps");
    assert_eq!(swept.runs, 3);
    let gone = store.run("5e-00000002").await;
    assert!(matches!(gone, Err(StoreError::NotFound { .. })), "{gone:?}");
    store.run("5e-00000003").await.expect("kept");
}
