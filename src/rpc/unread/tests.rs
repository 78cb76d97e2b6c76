use std::sync::Mutex;

use super::*;

fn ledger(budget: usize) -> Arc<Ledger> {
    Ledger::new(budget, Arc::new(|_| {}))
}

/// A connection of an address.
fn peer(last: u8, port: u16) -> Option<SocketAddr> {
    Some(SocketAddr::from(([192, 0, 2, last], port)))
}

#[test]
fn the_oldest_answers_of_who_has_the_most_are_dropped() {
    let ledger = ledger(100_000);
    let elsewhere = ledger.keep(peer(1, 1), &[7; 30_000]);
    let beside = ledger.keep(peer(2, 2), &[7; 10_000]);
    let kept: Vec<_> = (0..5)
        .map(|_| ledger.keep(peer(2, 3), &[7; 30_000]))
        .collect();
    assert!(ledger.total().0 <= 100_000);
    let alive: Vec<bool> = kept.iter().map(|kept| kept.piece().is_some()).collect();
    assert_eq!(alive, [false, false, false, true, true]);
    assert!(elsewhere.piece().is_some(), "of another address");
    assert!(beside.piece().is_some(), "of another connection");
    // A single answer that exceeds the budget is still sent.
    let large = ledger.keep(peer(3, 1), &[7; 200_000]);
    assert!(large.piece().is_some());
    drop((elsewhere, beside, kept, large));
    assert_eq!(ledger.total(), (0, 0));
}

#[test]
fn what_the_transport_holds_is_counted_until_it_is_written() {
    let closed = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&closed);
    let close: Close = Arc::new(move |peer| told.lock().expect("alone").push(peer));
    let ledger = Ledger::new(100_000, close);
    let kept = ledger.keep(peer(1, 1), &[7; 20_000]);
    let (first, more) = kept.piece().expect("there");
    assert!(more);
    assert_eq!(ledger.total().0, 20_000);
    drop(first);
    assert_eq!(ledger.total().0, 20_000 - PIECE);
    // What was handed on cannot be dropped but with its connection.
    let handed: Vec<Bytes> = (0..11)
        .map(|_| ledger.hand_on(peer(2, 2), vec![7; 10_000].into()))
        .collect();
    assert_eq!(*closed.lock().expect("alone"), [peer(2, 2).expect("one")]);
    assert!(ledger.total().0 <= 100_000);
    assert!(kept.piece().is_some(), "of another address");
    drop((handed, kept));
    assert_eq!(ledger.total(), (0, 0));
}

#[test]
fn results_of_a_stream_are_counted_in_steps() {
    let ledger = ledger(10 << 20);
    let reader = Reader {
        ledger: Arc::clone(&ledger),
        peer: peer(1, 1),
    };
    let results = reader.results();
    let mut held: Vec<_> = (0..100).map(|_| results.count(1000)).collect();
    let counted = ledger.total().0;
    assert!((100_000 - STEP..=100_000).contains(&counted), "{counted}");
    held.truncate(50);
    let counted = ledger.total().0;
    assert!((50_000..50_000 + STEP).contains(&counted), "{counted}");
    held.clear();
    assert_eq!(ledger.total(), (0, 0));
}

#[tokio::test]
async fn an_answer_comes_whole_and_in_pieces() {
    use http_body_util::{BodyExt as _, Full};
    let ledger = ledger(1 << 20);
    for length in [0, 5, PIECE, PIECE + 1, 5 * PIECE + 3] {
        let whole = Bytes::from(vec![7; length]);
        let body = Body::new(Full::new(whole.clone()));
        let answered = whole.clone();
        let inner = tower::service_fn(move |_: Request<()>| {
            let body = Body::new(Full::new(answered.clone()));
            async move { Ok::<_, Infallible>(Response::new(body)) }
        });
        let layer = UnreadLayer {
            ledger: Arc::clone(&ledger),
        };
        let answer = layer.layer(inner).call(Request::new(())).await;
        let answer = answer.expect("infallible").into_body();
        assert_eq!(answer.size_hint().exact(), body.size_hint().exact());
        let got = answer.collect().await.expect("whole").to_bytes();
        assert_eq!(got, whole);
    }
    assert_eq!(ledger.total().0, 0);
}
