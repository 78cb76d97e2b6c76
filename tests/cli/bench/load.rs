//! `tipserve bench`: every item counted once, whatever becomes of it. Nothing
//! here looks at how long anything took.

use std::process::Stdio;

use serde_json::Value;

use crate::{
    fake::Fake,
    run::{Folder, Ran, tipserve},
    scripted::Scripted,
};

/// A folder of pictures with these words.
fn pictures(words: &[&str]) -> Folder {
    let folder = Folder::new(&[], &[]);
    for (number, word) in words.iter().enumerate() {
        folder.write(&format!("{number:04}.jpg"), word);
    }
    folder
}

fn bench(server: &Scripted, folder: &Folder, args: &[&str]) -> Ran {
    let mut all = vec!["--json", "--cache", "c", "--warmup", "0"];
    all.extend(args);
    if !args.contains(&"--random-embeddings") {
        all.push(folder.str());
    }
    Ran::of(server.command(&all).output().unwrap())
}

fn count(document: &Value, field: &str) -> u64 {
    document[field]
        .as_u64()
        .unwrap_or_else(|| panic!("{field}: {document}"))
}

/// Every item that was sent has one end, and the reasons add up.
fn check_sums(document: &Value) {
    let of = |field| count(document, field);
    let ends = of("answered") + of("refused") + of("expired") + of("failed") + of("lost");
    assert_eq!(of("sent"), ends, "{document}");
    let reasons: u64 = document["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reason| count(reason, "count"))
        .sum();
    assert_eq!(reasons, ends - of("answered") + of("unsent"), "{document}");
}

fn reason(document: &Value, outcome: &str, code: &str, reason: &str) -> u64 {
    document["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["outcome"] == outcome)
        .filter(|it| it["code"].as_str().unwrap_or_default() == code && it["reason"] == reason)
        .map(|it| count(it, "count"))
        .sum()
}

#[test]
fn a_closed_loop_sends_what_was_asked_and_no_more_at_once() {
    let fake = Fake::start();
    fake.add_cache("c", &["cat", "dog"]);
    let folder = Folder::new(&["a", "b"], &[3, 2]);
    let args = ["--json", "--cache", "c@1", folder.str()];
    let more = ["--concurrency", "7", "--count", "100", "--warmup", "0"];
    let document = tipserve(&fake, &[&args[..], &more].concat())
        .expect(0)
        .json();
    check_sums(&document);
    assert_eq!(count(&document, "sent"), 100);
    assert_eq!(count(&document, "answered"), 100);
    assert_eq!(count(&document, "in_time"), 100);
    assert_eq!(document["mode"], "closed");
    assert_eq!(document["concurrency"], 7);
    assert_eq!(document["inputs"], "pictures");
    assert_eq!(document["input_count"], 5);
    assert_eq!(document["interrupted"], false);
    assert!(document["rate"].is_null() && document["deadline_seconds"].is_null());
    assert!(document["server_seconds"].is_null());
    for field in ["seconds", "answers_per_second", "client_cpu_seconds"] {
        assert!(
            document[field].as_f64().unwrap() > 0.0,
            "{field}: {document}"
        );
    }
    for field in ["mean", "p50", "p95", "p99", "max"] {
        let value = &document["latency_seconds"][field];
        assert!(value.as_f64().unwrap() > 0.0, "{field}: {document}");
    }
    let most = fake.most_outstanding();
    assert!((1..=7).contains(&most), "{most}");
}

#[test]
fn each_end_of_an_item_is_tallied_by_its_reason() {
    let server = Scripted::start();
    let folder = pictures(&["ANSWER", "REFUSE", "EXPIRE", "FAIL", "ANSWER"]);
    let args = ["--concurrency", "3", "--count", "50"];
    let document = bench(&server, &folder, &args).expect(4).json();
    check_sums(&document);
    for (field, times) in [
        ("sent", 50),
        ("answered", 20),
        ("refused", 10),
        ("unsent", 0),
    ] {
        assert_eq!(count(&document, field), times, "{field}: {document}");
    }
    let refused = reason(&document, "refused", "RESOURCE_EXHAUSTED", "QUEUE_FULL");
    let expired = reason(
        &document,
        "expired",
        "DEADLINE_EXCEEDED",
        "DEADLINE_EXCEEDED",
    );
    let failed = reason(
        &document,
        "failed",
        "INVALID_ARGUMENT",
        "PICTURE_UNDECODABLE",
    );
    assert_eq!((refused, expired, failed), (10, 10, 10), "{document}");

    // A full server is a finding, not a failure.
    let folder = pictures(&["ANSWER", "REFUSE", "EXPIRE"]);
    bench(&server, &folder, &args).expect(0);
}

#[test]
fn what_the_server_must_know_is_told() {
    let server = Scripted::start();
    let folder = pictures(&["ANSWER"]);
    let asked = ["--deadline", "5", "--timings", "--bulk", "--top-k", "3"];
    let args = [&asked[..], &["--count", "64", "--pack", "4"]].concat();
    let document = bench(&server, &folder, &args).expect(0).json();
    assert_eq!(document["deadline_seconds"], 5.0);
    assert_eq!(document["server_seconds"]["encode"], 0.25);
    assert_eq!(document["server_seconds"]["batch_size"], 16.0);
    let seen = server.seen();
    let options = seen.configs[0].options.unwrap();
    assert!(options.timings && options.top_k == 3);
    assert_eq!(seen.configs[0].priority, 2);
    assert!(!seen.configs[0].ordered);
    assert!((1..=4).contains(&seen.most_packed), "{}", seen.most_packed);
    assert_eq!(seen.items[0].len(), 64);
    for item in &seen.items[0] {
        let limit = item.time_limit.expect("a time limit");
        let seconds = limit.seconds as f64 + f64::from(limit.nanos) * 1e-9;
        assert!(seconds > 0.0 && seconds <= 5.0, "{seconds}");
    }
}

#[test]
fn an_open_loop_sends_every_item_of_its_schedule() {
    let server = Scripted::start();
    let args = ["--random-embeddings", "--inputs", "10"];
    let more = ["--rate", "2000", "--count", "300", "--streams", "3"];
    let folder = pictures(&[]);
    let document = bench(&server, &folder, &[&args[..], &more].concat())
        .expect(0)
        .json();
    check_sums(&document);
    assert_eq!(count(&document, "sent"), 300);
    assert_eq!(document["mode"], "open");
    assert_eq!(document["rate"], 2000.0);
    assert_eq!(document["inputs"], "random embeddings");
    assert_eq!(document["streams_used"], 3);
    let seen = server.seen();
    let of_stream: Vec<usize> = seen.items.iter().map(Vec::len).collect();
    assert_eq!(of_stream.iter().sum::<usize>(), 300);
    assert!(of_stream.iter().all(|items| *items > 0), "{of_stream:?}");
    let mut different = std::collections::HashSet::new();
    for item in seen.items.iter().flatten() {
        let content = item.input.as_ref().unwrap().content.as_ref().unwrap();
        let tipserve_api::v1::input::Content::Embedding(embedding) = content else {
            panic!("{content:?}");
        };
        assert_eq!(embedding.values.len(), 8);
        let bits: Vec<u32> = embedding.values.iter().map(|it| it.to_bits()).collect();
        different.insert(bits);
    }
    assert_eq!(different.len(), 10);
}

#[test]
fn all_caches_that_match_get_items_on_streams_of_their_own() {
    let fake = Fake::start();
    for id in ["load-1", "load-2", "load-30", "other", "plain"] {
        fake.add_cache(id, &["cat", "dog"]);
    }
    let args = ["--json", "--caches", "load-*", "--cache", "plain"];
    let more = ["--streams", "2", "--count", "600", "--random-embeddings"];
    let args = [&args[..], &more, &["--warmup", "0"]].concat();
    let document = tipserve(&fake, &args).expect(0).json();
    check_sums(&document);
    assert_eq!(count(&document, "answered"), 600);
    assert_eq!(
        (document["caches"].clone(), document["streams"].clone()),
        (4.into(), 8.into())
    );
    assert_eq!(document["caches_used"], 4);
    assert_eq!(document["streams_used"], 8);
    let mut caches: Vec<_> = fake
        .state()
        .configs
        .iter()
        .map(|it| it.cache.clone())
        .collect();
    caches.sort();
    let expected: Vec<_> = ["load-1", "load-2", "load-30", "plain"]
        .into_iter()
        .flat_map(|id| [id, id])
        .collect();
    assert_eq!(caches, expected);
}

#[test]
fn an_item_without_answer_is_lost_and_one_with_two_is_seen() {
    let server = Scripted::start();
    let folder = pictures(&["ANSWER", "ANSWER", "IGNORE", "ANSWER"]);
    let args = ["--count", "20", "--concurrency", "20", "--drain", "0.3"];
    let document = bench(&server, &folder, &args).expect(4).json();
    check_sums(&document);
    assert_eq!(count(&document, "sent"), 20);
    assert_eq!(count(&document, "lost"), 5);
    assert_eq!(reason(&document, "lost", "", "NO_ANSWER"), 5);

    let folder = pictures(&["ANSWER", "TWICE"]);
    let document = bench(&server, &folder, &["--count", "20"]).expect(4).json();
    check_sums(&document);
    assert_eq!(count(&document, "answered"), 20);
    assert_eq!(count(&document, "unexpected"), 10);
}

#[test]
fn a_broken_stream_loses_its_items_and_the_others_go_on() {
    let server = Scripted::start();
    let mut words = vec!["ANSWER"; 200];
    words[20] = "BREAK";
    let folder = pictures(&words);
    let args = ["--count", "200", "--concurrency", "8", "--streams", "2"];
    let document = bench(&server, &folder, &args).expect(4).json();
    check_sums(&document);
    let lost = reason(&document, "lost", "UNAVAILABLE", "SHUTTING_DOWN");
    assert!(lost >= 1, "{document}");
    assert_eq!(count(&document, "lost"), lost);
    assert_eq!(count(&document, "sent") + count(&document, "unsent"), 200);
    // Eight at the most were on their way when it broke.
    assert!(count(&document, "answered") >= 192, "{document}");

    // No stream is left: the load ends.
    let document = bench(&server, &folder, &args[..4]).expect(4).json();
    check_sums(&document);
    assert!(count(&document, "answered") < 200, "{document}");
}

#[test]
fn unary_calls_are_counted_alike() {
    let server = Scripted::start();
    let folder = pictures(&["ANSWER", "REFUSE", "FAIL", "ANSWER"]);
    let args = ["--unary", "--connections", "2", "--deadline", "8"];
    let more = ["--count", "80", "--concurrency", "5", "--timings"];
    let document = bench(&server, &folder, &[&args[..], &more].concat())
        .expect(4)
        .json();
    check_sums(&document);
    assert_eq!(count(&document, "answered"), 40);
    assert_eq!(
        reason(&document, "refused", "RESOURCE_EXHAUSTED", "QUEUE_FULL"),
        20
    );
    assert_eq!(count(&document, "failed"), 20);
    assert_eq!(
        (document["streams"].clone(), document["connections"].clone()),
        (0.into(), 2.into())
    );
    assert_eq!(document["server_seconds"]["batch_size"], 16.0);
    let seen = server.seen();
    assert!(seen.configs.is_empty());
    assert_eq!(seen.calls.len(), 80);
    for (call, timeout) in &seen.calls {
        assert_eq!(call.cache, "c");
        assert!(timeout.is_some());
    }
}

#[test]
fn ctrl_c_reports_what_there_is_so_far() {
    let server = Scripted::start();
    let folder = pictures(&["ANSWER", "ANSWER", "ANSWER", "IGNORE"]);
    let args = ["--json", "--cache", "c", "--warmup", "0", folder.str()];
    let more = ["--duration", "1000", "--concurrency", "4"];
    let child = server
        .command(&[&args[..], &more].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Four pictures are never answered, so that the load comes to rest.
    while server
        .seen()
        .items
        .first()
        .is_none_or(|items| items.len() < 16)
    {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let mut kill = std::process::Command::new("kill");
    assert!(
        kill.args(["-INT", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    let document = Ran::of(child.wait_with_output().unwrap())
        .expect(130)
        .json();
    check_sums(&document);
    assert_eq!(document["interrupted"], true);
    assert_eq!(count(&document, "sent"), 16);
    assert_eq!(
        reason(&document, "lost", "", "INTERRUPTED"),
        count(&document, "lost")
    );
    assert!(count(&document, "lost") >= 4);
}

#[test]
fn the_text_names_the_figures() {
    let server = Scripted::start();
    let folder = pictures(&["ANSWER", "REFUSE"]);
    let args = ["--cache", "c", "--warmup", "0", folder.str()];
    let more = ["--count", "10", "--deadline", "9"];
    let command = server.command(&[&args[..], &more].concat()).output();
    let text = Ran::of(command.unwrap()).expect(0).stdout;
    for words in [
        "closed loop, 64 on their way of pictures",
        "1 cache, 1 stream, 1 connection",
        "answers a second",
        "within 9 s a second (goodput)",
        "p99",
        "of a core for this client",
        "RESOURCE_EXHAUSTED QUEUE_FULL",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn command_lines_that_make_no_load() {
    let fake = Fake::start();
    fake.add_cache("c", &["cat"]);
    let folder = pictures(&["IMG 0"]);
    let (empty, picture) = (pictures(&[]), folder.str());
    for (args, code) in [
        (vec![picture], 2),
        (vec!["--cache", "c"], 2),
        (
            vec!["--cache", "c", picture, "--rate", "5", "--concurrency", "2"],
            2,
        ),
        (
            vec!["--cache", "c", picture, "--count", "5", "--duration", "2"],
            2,
        ),
        (vec!["--cache", "c", picture, "--random-embeddings"], 2),
        (vec!["--cache", "c", picture, "--rate", "0"], 2),
        (vec!["--cache", "c", picture, "--deadline", "-1"], 2),
        (vec!["--cache", "c", "--random-embeddings", "--raw"], 2),
        (
            vec!["--cache", "c", picture, "--streams", "3", "--unary"],
            2,
        ),
        (
            vec![
                "--cache",
                "c",
                picture,
                "--streams",
                "2000",
                "--connections",
                "1",
            ],
            2,
        ),
        (vec!["--cache", "none", picture], 3),
        (vec!["--caches", "x*", picture], 3),
        (vec!["--cache", "c", "/not/there.jpg"], 3),
        (vec!["--cache", "c", empty.str()], 1),
        (vec!["--cache", "c", picture, "--raw"], 1),
    ] {
        let ran = tipserve(&fake, &args);
        assert_eq!(ran.code, code, "{args:?}: {ran:?}");
    }
}
