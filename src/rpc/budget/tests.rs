use std::collections::HashMap;

use futures::FutureExt as _;
use rand::{Rng as _, SeedableRng as _};

use super::*;

const MIB: usize = 1 << 20;

fn budget(mib: usize) -> Arc<MessageBudget> {
    Arc::new(MessageBudget::new(mib * MIB, MIB))
}

fn now(budget: &Arc<MessageBudget>, caller: &str, port: u16) -> Option<MessageBytes> {
    wait(budget, caller, port).now_or_never()
}

fn wait(
    budget: &Arc<MessageBudget>,
    caller: &str,
    port: u16,
) -> Pin<Box<impl Future<Output = MessageBytes> + use<>>> {
    let connection = SocketAddr::from(([127, 0, 0, 1], port));
    Box::pin(Arc::clone(budget).take(caller.to_owned(), Some(connection), MIB))
}

/// All that a caller can have now, over several connections.
fn all(budget: &Arc<MessageBudget>, caller: &str) -> Vec<MessageBytes> {
    let ports = (1..200).cycle().take(4 * 200);
    ports.filter_map(|port| now(budget, caller, port)).collect()
}

#[test]
fn one_connection_has_a_quarter_and_one_caller_half() {
    let budget = budget(64);
    let one: Vec<_> = std::iter::from_fn(|| now(&budget, "a", 1)).collect();
    assert_eq!(one.len(), 16);
    let others = all(&budget, "a");
    assert_eq!(one.len() + others.len(), 32);
    drop((one, others));
    assert!(now(&budget, "a", 1).is_some(), "given back");
}

#[test]
fn callers_leave_something_for_the_next_however_many_they_are() {
    let budget = budget(64);
    let greedy: Vec<_> = ["a", "b", "c", "d"].map(|name| all(&budget, name)).into();
    let had: Vec<_> = greedy.iter().map(Vec::len).collect();
    assert_eq!(had, [32, 16, 8, 4]);
    assert!(now(&budget, "e", 1).is_some());
}

#[test]
fn callers_who_go_on_come_to_equal_shares() {
    let budget = budget(64);
    let mut chance = rand_chacha(7);
    let mut held: HashMap<&str, Vec<MessageBytes>> = HashMap::new();
    held.insert("first", all(&budget, "first"));
    for _ in 0..100 {
        for name in ["first", "second", "third"] {
            let own = held.entry(name).or_default();
            if !own.is_empty() && chance.random_bool(0.5) {
                own.swap_remove(chance.random_range(0..own.len()));
            }
            own.extend(all(&budget, name));
        }
    }
    for (name, own) in &held {
        assert!((14..=18).contains(&own.len()), "{name}: {}", own.len());
    }
}

fn rand_chacha(seed: u64) -> rand::rngs::StdRng {
    rand::rngs::StdRng::seed_from_u64(seed)
}

#[test]
fn who_has_least_goes_first() {
    let budget = budget(8);
    let mut greedy = all(&budget, "a");
    let mut also = all(&budget, "b");
    let mut third = all(&budget, "c");
    assert_eq!((greedy.len(), also.len(), third.len()), (4, 2, 1));
    third.extend(now(&budget, "d", 1));
    // All is taken, and each of them wants more.
    let mut more: Vec<_> = ["a", "b", "c"].map(|name| wait(&budget, name, 300)).into();
    let mut new = wait(&budget, "e", 1);
    for waiting in &mut more {
        assert!(waiting.as_mut().now_or_never().is_none());
    }
    assert!(new.as_mut().now_or_never().is_none());
    greedy.pop();
    assert!(new.as_mut().now_or_never().is_some(), "the newcomer");
    greedy.clear();
    also.clear();
    let now: Vec<_> = more
        .iter_mut()
        .map(|it| it.as_mut().now_or_never().is_some())
        .collect();
    assert_eq!(now, [true; 3]);
}

#[test]
fn the_largest_message_always_fits() {
    let budget = Arc::new(MessageBudget::new(PIECE, MIB));
    assert!(now(&budget, "a", 1).is_some());
}

#[test]
fn what_exceeds_a_share_takes_it_whole() {
    let budget = budget(8);
    let large = || {
        let large = Arc::clone(&budget).take("a".to_owned(), None, 100 * MIB);
        large.now_or_never()
    };
    let held = [large(), large()];
    assert!(held.iter().all(Option::is_some));
    assert!(large().is_none() && now(&budget, "a", 1).is_none());
    drop(held);
    assert!(now(&budget, "a", 1).is_some());
}

#[test]
fn those_who_go_away_leave_nothing_behind() {
    let budget = budget(8);
    let held: Vec<_> = ["a", "b"].map(|name| all(&budget, name)).into();
    for port in 0..10_000 {
        let name = port.to_string();
        drop(now(&budget, &name, port));
        assert!(now(&budget, "a", port).is_none());
    }
    assert_eq!(budget.queue.lock().callers(), 2);
    drop(held);
    assert_eq!(budget.queue.lock().callers(), 0);
    assert_eq!(all(&budget, "a").len(), 4, "all of it was given back");
}
