//! Looks into the log that a trim, a deletion, or a new stream of the same name overtakes: they say what is there now, and never that it is
//! damaged (S-6).

use std::time::Duration;

use crate::support::*;

/// While a call looks into the log of stream `s`, which holds `a` to `d` in a batch each, `meanwhile` happens to it; and its answer.
async fn overtaken<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    call: impl FnOnce(Broker) -> F,
    meanwhile: impl AsyncFnOnce(&Bench),
) -> (Bench, T) {
    let bench = Bench::with_stream("s").await;
    for text in ["a", "b", "c", "d"] {
        bench.put("s", &[text]).await;
    }
    bench.subscribe_new("s", "x").await;
    bench.engine.hold_next_read();
    let called = tokio::spawn(call(bench.broker.clone()));
    bench.engine.reads_held(1).await;
    meanwhile(&bench).await;
    bench.engine.release_read();
    (bench, soon(called).await.expect("no panic"))
}

async fn replace(bench: &Bench) {
    bench.delete("s").await;
    bench.create("s").await;
    bench.put("s", &["e", "f", "g", "h"]).await;
}

#[tokio::test]
async fn a_trim_that_another_one_or_a_deletion_overtakes_says_what_is_there_now() {
    let trim = |broker: Broker| async move { broker.trim_stream(&OPERATOR, &name("s"), TrimTo::Offset(1)).await };
    let (_, trimmed) = overtaken(trim, async |bench| drop(bench.trim("s", 4).await)).await;
    assert_eq!(trimmed.map(|info| (info.first_offset, info.next_offset)), Ok((4, 4)));
    let (_, trimmed) = overtaken(trim, async |bench| bench.delete("s").await).await;
    refused(trimmed, Code::NotFound, "");
    let (bench, trimmed) = overtaken(trim, replace).await;
    refused(trimmed, Code::StreamReplaced, "");
    assert_eq!(bench.texts("s").await, ["e", "f", "g", "h"], "the new stream keeps what it has");
}

#[tokio::test]
async fn a_look_at_one_event_that_a_trim_or_a_deletion_overtakes_says_what_is_there_now() {
    let look = |which: Which| move |broker: Broker| async move { broker.event(&OPERATOR, &name("s"), which).await.map(|slice| texts_of(&slice)) };
    let (_, event) = overtaken(look(Which::Offset(1)), async |bench| drop(bench.trim("s", 2).await)).await;
    assert_eq!(detail(&refused(event, Code::OffsetTrimmed, ""), "first_offset"), 2);
    let (_, event) = overtaken(look(Which::First), async |bench| drop(bench.trim("s", 2).await)).await;
    assert_eq!(event, Ok(vec![(2, "c".to_owned())]));
    let (_, event) = overtaken(look(Which::First), async |bench| drop(bench.trim("s", 4).await)).await;
    refused(event, Code::StreamEmpty, "");
    let (_, event) = overtaken(look(Which::First), async |bench| bench.delete("s").await).await;
    refused(event, Code::NotFound, "");
    let (_, event) = overtaken(look(Which::First), replace).await;
    assert_eq!(event, Ok(vec![(0, "e".to_owned())]));
}

#[tokio::test]
async fn a_look_for_a_time_and_a_look_at_the_lag_pass_over_what_a_trim_takes_meanwhile() {
    let read = |broker: Broker| async move {
        let request = ReadRequest { from: ReadFrom::At(Start::Time(TimeUs(0))), limit: 1, wait: Duration::ZERO };
        broker.read(&OPERATOR, &name("s"), request).await.map(|page| page.slices.iter().flat_map(texts_of).collect::<Vec<_>>())
    };
    let (_, page) = overtaken(read, async |bench| drop(bench.trim("s", 3).await)).await;
    assert_eq!(page, Ok(vec![(3, "d".to_owned())]));
    let (_, page) = overtaken(read, async |bench| bench.delete("s").await).await;
    refused(page, Code::NotFound, "");
    let look = |broker: Broker| async move { broker.subscription(&OPERATOR, &name("s"), &sub("x")).await.map(|info| (info.next, info.lag.events)) };
    let (_, lag) = overtaken(look, async |bench| drop(bench.trim("s", 3).await)).await;
    assert_eq!(lag, Ok((0, 1)));
    let (_, lag) = overtaken(look, async |bench| drop(bench.trim("s", 4).await)).await;
    assert_eq!(lag, Ok((0, 0)));
}

#[tokio::test]
async fn a_look_at_a_stream_that_a_trim_overtakes_shows_no_end_that_goes_back() {
    let bench = Bench::with_stream("s").await;
    bench.put("s", &["a", "b", "c"]).await;
    let id = bench.describe("s").await.id;
    bench.engine.hold_row(Key::Bounds(id));
    let looking = tokio::spawn({
        let broker = bench.broker.clone();
        async move { broker.stream(&OPERATOR, &name("s")).await }
    });
    bench.engine.reads_held(1).await;
    let trimming = tokio::spawn({
        let broker = bench.broker.clone();
        async move { broker.trim_stream(&OPERATOR, &name("s"), TrimTo::Offset(3)).await }
    });
    // The trim is stored, and describes the stream in its answer.
    bench.engine.reads_held(2).await;
    bench.engine.release_row(Key::Bounds(id));
    let (looked, trimmed) = (soon(looking).await.expect("no panic").expect("it is there"), soon(trimming).await.expect("no panic").expect("it is there"));
    assert_eq!((trimmed.first_offset, trimmed.next_offset), (3, 3));
    assert_eq!(looked.next_offset, 3, "three events had been acknowledged before anybody looked");
}
