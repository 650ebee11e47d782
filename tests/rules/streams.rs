//! Streams: create, list, describe, trim, close, delete; stateless reads; appends from many sides; restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::support::*;

async fn list(bench: &Bench, after: Option<&str>, limit: Option<usize>) -> (Vec<String>, bool) {
    let query = ListQuery { after: after.map(str::to_owned), limit, filter: None };
    let page = soon(bench.broker.streams(&OPERATOR, query)).await.unwrap();
    (page.items.into_iter().map(|s| s.name.as_str().to_owned()).collect(), page.more)
}

async fn read(bench: &Bench, from: ReadFrom, limit: usize) -> Result<ReadReply> {
    soon(bench.broker.read(&OPERATOR, &name("s"), ReadRequest { from, limit, wait: Duration::ZERO })).await
}

fn got(reply: &ReadReply) -> Vec<String> {
    reply.slices.iter().flat_map(texts_of).map(|(_, text)| text).collect()
}

#[tokio::test]
async fn a_new_stream_is_empty_and_has_its_defaults() {
    let bench = Bench::new().await;
    let before = TimeUs::now();
    let stream = bench.create("Orders").await;
    assert_eq!(stream.id, StreamId(1));
    assert_eq!(stream.name.as_str(), "Orders");
    assert_eq!((stream.owner, stream.description.as_str(), &stream.metadata), (1, "", &BTreeMap::new()));
    assert_eq!((stream.status, stream.closed, stream.event_max_bytes), (StreamStatus::Ready, false, limits::EVENT_MAX_BYTES as u64));
    assert_eq!((stream.first_offset, stream.next_offset, stream.bytes, stream.last_event_at, stream.log_epoch), (0, 0, 0, None, 1));
    assert!(stream.created >= before && stream.created <= TimeUs::now());
    assert_eq!(stream.uuid.len(), 36);
    assert_eq!(bench.describe("Orders").await, stream);
    assert_eq!(bench.crash().await.describe("Orders").await, stream);
}

#[tokio::test]
async fn what_a_stream_was_asked_to_be_is_kept() {
    let bench = Bench::new().await;
    let new = NewStream {
        description: "all of them".into(),
        metadata: BTreeMap::from([("team".to_owned(), "pay".to_owned())]),
        event_max_bytes: Some(10),
        ..NewStream::named(name("s"))
    };
    let stream = soon(bench.broker.create_stream(&OPERATOR, new)).await.unwrap();
    assert_eq!((stream.description.as_str(), stream.metadata["team"].as_str(), stream.event_max_bytes), ("all of them", "pay", 10));
    bench.put("s", &["1234567890"]).await;
    let error = refused(bench.append(plain("s", &["12345678901"])).await, Code::TooLarge, "");
    assert_eq!(detail(&error, "limit"), 10);
    let bench = bench.crash().await;
    assert_eq!(bench.describe("s").await.metadata, stream.metadata);
    refused(bench.append(plain("s", &["12345678901"])).await, Code::TooLarge, "");
}

#[tokio::test]
async fn a_name_in_use_is_taken_also_in_other_letters() {
    let bench = Bench::with_stream("Orders").await;
    for taken in ["Orders", "orders", "ORDERS"] {
        let error = refused(soon(bench.broker.create_stream(&OPERATOR, NewStream::named(name(taken)))).await, Code::NameTaken, "");
        assert_eq!(error.resource.as_deref(), Some("/v1/streams/Orders"));
    }
    assert_eq!(list(&bench, None, None).await.0, ["Orders"]);
}

#[tokio::test]
async fn of_many_who_create_one_name_exactly_one_wins() {
    let bench = Bench::new().await;
    let tries: Vec<_> = (0..10)
        .map(|_| {
            let broker = bench.broker.clone();
            tokio::spawn(async move { broker.create_stream(&OPERATOR, NewStream::named(name("s"))).await })
        })
        .collect();
    let mut won = 0;
    for one in tries {
        match soon(one).await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert_eq!(error.code, Code::NameTaken),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn lists_are_sorted_by_name_and_paged() {
    let bench = Bench::new().await;
    for stream in ["b", "a", "longer-name", "c10", "c2", "aa"] {
        bench.create(stream).await;
    }
    let sorted = ["a", "aa", "b", "c10", "c2", "longer-name"];
    assert_eq!(list(&bench, None, None).await, (sorted.map(str::to_owned).to_vec(), false));
    assert_eq!(list(&bench, None, Some(2)).await, (vec!["a".into(), "aa".into()], true));
    assert_eq!(list(&bench, Some("aa"), Some(3)).await, (vec!["b".into(), "c10".into(), "c2".into()], true));
    assert_eq!(list(&bench, Some("c2"), Some(3)).await, (vec!["longer-name".into()], false));
    assert_eq!(list(&bench, Some("bb"), Some(1)).await, (vec!["c10".into()], true), "the name itself need not exist");
    assert_eq!(list(&bench, Some("zz"), None).await, (vec![], false));
    assert!(!list(&bench, None, Some(6)).await.1);
}

#[tokio::test]
async fn a_missing_stream_is_not_found_everywhere() {
    let bench = Bench::new().await;
    let (b, n) = (&bench.broker, name("none"));
    let all = [
        soon(b.stream(&OPERATOR, &n)).await.map(drop),
        soon(b.delete_stream(&OPERATOR, &n)).await.map(drop),
        soon(b.trim_stream(&OPERATOR, &n, TrimTo::Offset(0))).await.map(drop),
        soon(b.close_stream(&OPERATOR, &n)).await.map(drop),
        soon(b.subscriptions(&OPERATOR, &n, ListQuery::default())).await.map(drop),
        soon(b.subscription(&OPERATOR, &n, &sub("x"))).await.map(drop),
        soon(b.create_subscription(&OPERATOR, &n, new_subscription("x"))).await.map(drop),
        soon(b.delete_subscription(&OPERATOR, &n, &sub("x"))).await.map(drop),
        soon(b.seek(&OPERATOR, &n, &sub("x"), Start::Earliest)).await.map(drop),
        soon(b.append(&OPERATOR, plain("none", &["a"]))).await.map(drop),
        soon(b.read(&OPERATOR, &n, ReadRequest { from: ReadFrom::At(Start::Earliest), limit: 1, wait: Duration::ZERO })).await.map(drop),
        soon(b.event(&OPERATOR, &n, Which::Last)).await.map(drop),
        answer(bench.connect().subscribe(attach_ephemeral("none", None))).await.map(drop),
    ];
    for one in all {
        let error = refused(one, Code::NotFound, "");
        assert!(error.resource.as_deref().is_some_and(|r| r.starts_with("/v1/streams/none")), "{error:?}");
    }
}

#[tokio::test]
async fn with_creation_on_use_the_first_append_or_reader_makes_the_stream() {
    let bench = Bench::with(Settings { create_streams_on_use: true, ..roomy() }).await;
    assert_eq!(bench.append(plain("a", &["x"])).await, stored(0, 1));
    let mut c = bench.connect();
    let mut reader = Reader::open(&mut c, attach_ephemeral("b", None)).await.unwrap();
    assert_eq!(send(&mut c, plain("b", &["y"])).await, stored(0, 1));
    assert_eq!(reader.take(1).await, [(0, "y".into())]);
    let mut durable = Reader::open(&mut c, SubscribeRequest { create: true, ..attach("c", "x") }).await.unwrap();
    assert_eq!(send(&mut c, plain("c", &["z"])).await, stored(0, 1));
    assert_eq!(durable.take(1).await, [(0, "z".into())]);
    assert_eq!(list(&bench, None, None).await.0, ["a", "b", "c"]);
    refused(bench.append(AppendRequest { stream_id: Some(StreamId(99)), ..plain("d", &["x"]) }).await, Code::NotFound, "");
}

#[tokio::test]
async fn offsets_bytes_and_times_add_up() {
    let bench = Bench::with_stream("s").await;
    assert_eq!(bench.put("s", &["12", "345"]).await, (0, 1));
    assert_eq!(bench.put("s", &[""]).await, (2, 2));
    assert_eq!(bench.put("s", &["6789"]).await, (3, 3));
    let stream = bench.describe("s").await;
    assert_eq!((stream.first_offset, stream.next_offset, stream.bytes), (0, 4, 9));
    let last = soon(bench.broker.event(&OPERATOR, &name("s"), Which::Last)).await.unwrap();
    assert_eq!(stream.last_event_at, Some(last.batch().head.time));
    let reply = read(&bench, ReadFrom::At(Start::Earliest), 100).await.unwrap();
    let times: Vec<_> = reply.slices.iter().map(|s| s.batch().head.time).collect();
    assert!(times.is_sorted(), "{times:?}");
    let head = reply.slices[0].batch().head;
    assert_eq!((head.author_user, head.author_source, head.log_epoch), (1, 0, 1));
}

#[tokio::test]
async fn trim_drops_a_prefix_exactly_also_inside_a_batch() {
    let bench = Bench::with_stream("s").await;
    bench.put("s", &["1", "22", "333"]).await;
    bench.put("s", &["4444", "55555"]).await;
    let trimmed = bench.trim("s", 2).await;
    assert_eq!((trimmed.first_offset, trimmed.next_offset, trimmed.bytes), (2, 5, 12));
    assert_eq!(bench.texts("s").await, ["333", "4444", "55555"]);
    let trimmed = bench.trim("s", 3).await;
    assert_eq!((trimmed.first_offset, trimmed.bytes), (3, 9));
    let trimmed = bench.trim("s", 4).await;
    assert_eq!((trimmed.first_offset, trimmed.bytes), (4, 5));
    let bench = bench.crash().await;
    let found = bench.describe("s").await;
    assert_eq!((found.first_offset, found.next_offset, found.bytes), (4, 5, 5));
    assert_eq!(bench.texts("s").await, ["55555"]);
    assert_eq!(bench.put("s", &["6"]).await, (5, 5));
    assert_eq!(bench.describe("s").await.bytes, 6);
}

#[tokio::test]
async fn trim_at_or_below_the_first_offset_changes_nothing_and_above_the_end_is_refused() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 5).await;
    bench.trim("s", 3).await;
    for before in [0, 2, 3] {
        assert_eq!(bench.trim("s", before).await.first_offset, 3);
    }
    let error = refused(soon(bench.broker.trim_stream(&OPERATOR, &name("s"), TrimTo::Offset(6))).await, Code::OffsetBeyondEnd, "");
    assert_eq!(detail(&error, "next_offset"), 5);
    refused(soon(bench.broker.trim_stream(&OPERATOR, &name("s"), TrimTo::Offset(u64::MAX))).await, Code::OffsetBeyondEnd, "");
    assert_eq!(bench.trim("s", 5).await.first_offset, 5);
    assert_eq!(bench.texts("s").await, Vec::<String>::new());
}

#[tokio::test]
async fn trim_by_time_drops_what_is_older() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 3).await;
    let last = bench.describe("s").await.last_event_at.unwrap();
    let none = soon(bench.broker.trim_stream(&OPERATOR, &name("s"), TrimTo::Time(TimeUs(0)))).await.unwrap();
    assert_eq!(none.first_offset, 0);
    let all = soon(bench.broker.trim_stream(&OPERATOR, &name("s"), TrimTo::Time(TimeUs(last.0 + 1)))).await.unwrap();
    assert_eq!((all.first_offset, all.next_offset), (3, 3));
}

#[tokio::test]
async fn trim_ignores_cursors() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 5).await;
    bench.subscribe_new("s", "x").await;
    assert_eq!(bench.trim("s", 4).await.first_offset, 4);
    let subscription = bench.subscription("s", "x").await;
    assert_eq!((subscription.next, subscription.lag.events), (0, 1), "lag counts events that exist");
}

#[tokio::test]
async fn a_closed_stream_is_read_trimmed_and_deleted_but_never_written() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 3).await;
    bench.subscribe_new("s", "x").await;
    let closed = bench.close("s").await;
    assert!(closed.closed);
    assert_eq!(closed.status, StreamStatus::Ready);
    assert!(bench.close("s").await.closed, "closing twice is fine");
    let error = refused(bench.append(plain("s", &["a"])).await, Code::StreamClosed, "");
    assert_eq!(detail(&error, "next_offset"), 3);
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    assert_eq!(reader.take_until_live().await.len(), 3);
    assert_eq!(reader.ack(&mut c, 2).await, acked(3));
    let bench = bench.crash().await;
    assert!(bench.describe("s").await.closed);
    refused(bench.append(plain("s", &["a"])).await, Code::StreamClosed, "");
    assert_eq!(bench.trim("s", 2).await.first_offset, 2);
    bench.delete("s").await;
    assert!(!bench.create("s").await.closed);
    assert_eq!(bench.put("s", &["a"]).await, (0, 0));
}

#[tokio::test]
async fn deleting_is_an_operation_after_which_the_name_is_free_and_nothing_of_the_old_is_left() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 3).await;
    bench.subscribe_new("s", "x").await;
    let mut c = bench.connect();
    let epoch = open(&mut c, "s", "p").await;
    let old = bench.describe("s").await;
    let operation = soon(bench.broker.delete_stream(&OPERATOR, &name("s"))).await.unwrap();
    assert_eq!((operation.command.as_str(), operation.stream.as_str(), operation.requestor), ("stream.Delete", "s", 1));
    assert!([103, 200].contains(&operation.status_code));
    let done = soon(bench.broker.wait_operation(&OPERATOR, operation.id, Duration::from_secs(10))).await.unwrap();
    assert_eq!((done.id, done.status_code, done.err.as_str(), done.err_code.as_str()), (operation.id, 200, "", ""));
    assert!(done.updated >= done.created);
    refused(soon(bench.broker.stream(&OPERATOR, &name("s"))).await, Code::NotFound, "");
    assert_eq!(list(&bench, None, None).await.0, Vec::<String>::new());

    let new = bench.create("S").await;
    assert!(new.id > old.id && new.uuid != old.uuid);
    assert_eq!((new.next_offset, new.bytes), (0, 0));
    refused(soon(bench.broker.subscription(&OPERATOR, &name("S"), &sub("x"))).await, Code::NotFound, "");
    refused(bench.append(stamped("S", "p", epoch, 0, &["a"])).await, Code::ProducerUnknown, "P-1");
    let error = refused(bench.append(AppendRequest { stream_id: Some(old.id), ..plain("S", &["a"]) }).await, Code::StreamReplaced, "");
    assert_eq!(error.applied, Applied::No);
    let bench = bench.crash().await;
    let kept = soon(bench.broker.operation(&OPERATOR, operation.id)).await.unwrap();
    assert_eq!(kept.status_code, 200, "a finished operation can be looked up for a day");
    assert_eq!(bench.texts("S").await, Vec::<String>::new());
}

#[tokio::test]
async fn operations_that_ended_before_the_horizon_are_forgotten_and_no_others() {
    let bench = Bench::with_stream("s").await;
    bench.create("t").await;
    let old = soon(bench.broker.delete_stream(&OPERATOR, &name("s"))).await.unwrap();
    let old = soon(bench.broker.wait_operation(&OPERATOR, old.id, Duration::from_secs(10))).await.unwrap();
    let new = soon(bench.broker.delete_stream(&OPERATOR, &name("t"))).await.unwrap();
    let new = soon(bench.broker.wait_operation(&OPERATOR, new.id, Duration::from_secs(10))).await.unwrap();
    soon(bench.broker.forget_operations(old.updated)).await.unwrap();
    assert!(soon(bench.broker.operation(&OPERATOR, old.id)).await.is_ok(), "it ended at the horizon, not before");
    soon(bench.broker.forget_operations(TimeUs(old.updated.0 + 1))).await.unwrap();
    refused(soon(bench.broker.operation(&OPERATOR, old.id)).await, Code::NotFound, "");
    assert_eq!(soon(bench.broker.operation(&OPERATOR, new.id)).await.is_ok(), new.updated > old.updated);
}

#[tokio::test]
async fn a_stream_being_deleted_is_stopping_its_name_is_not_free_and_data_calls_do_not_find_it() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 2).await;
    bench.subscribe_new("s", "x").await;
    let mut c = bench.connect();
    let mut reader = Reader::durable(&mut c, "s", "x").await;
    let mut ephemeral = Reader::open(&mut c, attach_ephemeral("s", None)).await.unwrap();
    bench.engine.stop();
    let broker = bench.broker.clone();
    let deleting = tokio::spawn(async move { broker.delete_stream(&OPERATOR, &name("s")).await });
    bench.engine.waiting().await;
    assert_eq!(bench.describe("s").await.status, StreamStatus::Ready, "not before its commit");
    bench.engine.step(1).await;
    let operation = soon(deleting).await.unwrap().unwrap();
    assert_eq!(operation.status_code, 103);

    assert_eq!(bench.describe("s").await.status, StreamStatus::Stopping);
    assert_eq!(soon(bench.broker.operation(&OPERATOR, operation.id)).await.unwrap().status_code, 103);
    let waited = soon(bench.broker.wait_operation(&OPERATOR, operation.id, Duration::from_millis(10))).await.unwrap();
    assert_eq!(waited.status_code, 103, "the wait is bounded");
    refused(read(&bench, ReadFrom::At(Start::Earliest), 1).await.map(drop), Code::NotFound, "");
    refused(soon(bench.broker.event(&OPERATOR, &name("s"), Which::Last)).await.map(drop), Code::NotFound, "");
    refused(Err::<(), _>(reader.end().await), Code::NotFound, "");
    refused(Err::<(), _>(ephemeral.end().await), Code::NotFound, "");
    // What goes through the commit loop waits behind the held purge or is refused at once; it never gets through.
    let append = c.append(plain("s", &["a"])).await;
    let create = {
        let broker = bench.broker.clone();
        tokio::spawn(async move { broker.create_stream(&OPERATOR, NewStream::named(name("s"))).await })
    };
    bench.engine.go();
    refused(soon(append).await, Code::NotFound, "");
    let create = soon(create).await.unwrap();
    assert!(create.is_ok() || create.as_ref().is_err_and(|e| e.code == Code::Deleting), "{create:?}");
    let done = soon(bench.broker.wait_operation(&OPERATOR, operation.id, Duration::from_secs(10))).await.unwrap();
    assert_eq!(done.status_code, 200);
}

#[tokio::test]
async fn a_create_right_behind_a_delete_is_told_to_wait() {
    let bench = Bench::with_stream("s").await;
    // The end of the audit is at hand: a deletion that has to look for it is overtaken.
    bench.create("t").await;
    bench.delete("t").await;
    bench.engine.stop();
    let (one, two) = (bench.broker.clone(), bench.broker.clone());
    let blocker = bench.connect().append(plain("s", &["first"])).await;
    bench.engine.waiting().await;
    // Both are in the queue, in this order, before the purge can be.
    let delete = tokio::spawn(async move { one.delete_stream(&OPERATOR, &name("s")).await });
    tokio::task::yield_now().await;
    let create = tokio::spawn(async move { two.create_stream(&OPERATOR, NewStream::named(name("s"))).await });
    tokio::task::yield_now().await;
    bench.engine.go();
    soon(blocker).await.unwrap();
    let operation = soon(delete).await.unwrap().unwrap();
    refused(soon(create).await.unwrap(), Code::Deleting, "");
    soon(bench.broker.wait_operation(&OPERATOR, operation.id, Duration::from_secs(10))).await.unwrap();
    bench.create("s").await;
}

#[tokio::test]
async fn an_interrupted_deletion_goes_on_after_a_restart() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 5).await;
    bench.engine.stop();
    let broker = bench.broker.clone();
    let deleting = tokio::spawn(async move { broker.delete_stream(&OPERATOR, &name("s")).await });
    bench.engine.waiting().await;
    bench.engine.step(1).await;
    let operation = soon(deleting).await.unwrap().unwrap();
    let bench = bench.crash().await;
    let done = soon(bench.broker.wait_operation(&OPERATOR, operation.id, Duration::from_secs(10))).await.unwrap();
    assert_eq!(done.status_code, 200);
    refused(soon(bench.broker.stream(&OPERATOR, &name("s"))).await, Code::NotFound, "");
    assert_eq!(bench.create("s").await.next_offset, 0);
}

#[tokio::test]
async fn an_unknown_operation_is_not_found() {
    let bench = Bench::new().await;
    let id = OperationId(uuid::Uuid::nil());
    refused(soon(bench.broker.operation(&OPERATOR, id)).await, Code::NotFound, "");
    refused(soon(bench.broker.wait_operation(&OPERATOR, id, Duration::from_secs(1))).await, Code::NotFound, "");
}

#[tokio::test]
async fn reads_begin_after_an_offset_or_at_one_and_say_how_to_go_on() {
    let bench = Bench::with_stream("s").await;
    let empty = read(&bench, ReadFrom::At(Start::Earliest), 10).await.unwrap();
    assert_eq!((got(&empty), empty.first_offset, empty.next_offset, empty.after, empty.more), (vec![], 0, 0, None, false));
    bench.put("s", &["a", "b", "c"]).await;
    bench.put("s", &["d", "e"]).await;
    let first = read(&bench, ReadFrom::At(Start::Earliest), 2).await.unwrap();
    assert_eq!((got(&first).join(""), first.after, first.more), ("ab".into(), Some(1), true));
    let second = read(&bench, ReadFrom::After(1), 2).await.unwrap();
    assert_eq!((got(&second).join(""), second.after, second.more), ("cd".into(), Some(3), true));
    let third = read(&bench, ReadFrom::After(3), 2).await.unwrap();
    assert_eq!((got(&third).join(""), third.after, third.more), ("e".into(), Some(4), false));
    let end = read(&bench, ReadFrom::After(4), 2).await.unwrap();
    assert_eq!((got(&end), end.after, end.more, end.next_offset), (vec![], Some(4), false, 5));
    let at = read(&bench, ReadFrom::At(Start::Offset(3)), 10).await.unwrap();
    assert_eq!(got(&at).join(""), "de");
    let latest = read(&bench, ReadFrom::At(Start::Latest), 10).await.unwrap();
    assert_eq!((got(&latest), latest.after), (vec![], Some(4)));
    let at_end = read(&bench, ReadFrom::At(Start::Offset(5)), 10).await.unwrap();
    assert_eq!((got(&at_end), at_end.after), (vec![], Some(4)));
    let by_time = read(&bench, ReadFrom::At(Start::Time(TimeUs(0))), 10).await.unwrap();
    assert_eq!(got(&by_time).join(""), "abcde");
}

#[tokio::test]
async fn stateless_reads_outside_the_kept_range_are_refused_in_their_own_words() {
    let bench = Bench::with_stream("s").await;
    bench.fill("s", 6).await;
    bench.trim("s", 3).await;
    for beyond in [ReadFrom::After(6), ReadFrom::After(u64::MAX), ReadFrom::At(Start::Offset(7)), ReadFrom::At(Start::Offset(u64::MAX))] {
        let error = refused(read(&bench, beyond, 1).await.map(drop), Code::OffsetBeyondEnd, "");
        assert_eq!(detail(&error, "next_offset"), 6, "{beyond:?}");
    }
    for trimmed in [ReadFrom::After(0), ReadFrom::After(1), ReadFrom::At(Start::Offset(2)), ReadFrom::At(Start::Offset(0))] {
        let error = refused(read(&bench, trimmed, 1).await.map(drop), Code::OffsetTrimmed, "");
        assert_eq!(detail(&error, "first_offset"), 3, "{trimmed:?}");
    }
    assert_eq!(got(&read(&bench, ReadFrom::After(2), 10).await.unwrap()).join(","), "e3,e4,e5", "right before the first kept is legal");
    assert_eq!(read(&bench, ReadFrom::At(Start::Earliest), 1).await.unwrap().first_offset, 3);
    bench.trim("s", 6).await;
    let nothing = read(&bench, ReadFrom::After(5), 10).await.unwrap();
    assert_eq!((got(&nothing), nothing.after, nothing.first_offset), (vec![], Some(5), 6));
    let nothing = read(&bench, ReadFrom::At(Start::Earliest), 10).await.unwrap();
    assert_eq!(nothing.after, Some(5));
}

#[tokio::test]
async fn a_long_poll_waits_at_the_end_and_returns_when_its_time_is_up() {
    let bench = Bench::with_stream("s").await;
    let poll = |wait| {
        let broker = bench.broker.clone();
        let request = ReadRequest { from: ReadFrom::At(Start::Offset(0)), limit: 10, wait };
        tokio::spawn(async move { broker.read(&OPERATOR, &name("s"), request).await })
    };
    let short = soon(poll(Duration::from_millis(20))).await.unwrap().unwrap();
    assert_eq!((got(&short), short.more), (vec![], false));
    let mut long = Box::pin(poll(Duration::from_secs(60)));
    nothing_yet(&mut long).await;
    bench.put("s", &["a"]).await;
    assert_eq!(got(&soon(long).await.unwrap().unwrap()), ["a"]);
}

#[tokio::test]
async fn one_event_is_found_by_offset_from_either_end_or_at_random() {
    let bench = Bench::with_stream("s").await;
    let one = |which| {
        let broker = bench.broker.clone();
        async move { soon(broker.event(&OPERATOR, &name("s"), which)).await.map(|slice| (slice.from(), slice.count(), texts_of(&slice).remove(0).1)) }
    };
    for which in [Which::First, Which::Last, Which::Random, Which::FromEnd(1)] {
        refused(one(which).await, Code::StreamEmpty, "");
    }
    bench.put("s", &["a", "b", "c"]).await;
    bench.put("s", &["d"]).await;
    bench.trim("s", 1).await;
    assert_eq!(one(Which::First).await, Ok((1, 1, "b".into())));
    assert_eq!(one(Which::Last).await, Ok((3, 1, "d".into())));
    assert_eq!(one(Which::FromEnd(1)).await, Ok((3, 1, "d".into())));
    assert_eq!(one(Which::FromEnd(2)).await, Ok((2, 1, "c".into())));
    assert_eq!(one(Which::Offset(2)).await, Ok((2, 1, "c".into())));
    let error = refused(one(Which::Offset(0)).await, Code::OffsetTrimmed, "");
    assert_eq!(detail(&error, "first_offset"), 1);
    refused(one(Which::Offset(4)).await, Code::NotFound, "");
    refused(one(Which::Offset(u64::MAX)).await, Code::NotFound, "");
    assert!(one(Which::FromEnd(9)).await.is_err());
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        seen.insert(one(Which::Random).await.unwrap().0);
    }
    assert_eq!(seen, BTreeSet::from([1, 2, 3]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_of_many_connections_get_dense_offsets_and_keep_each_connections_order() {
    let bench = Bench::with_stream("s").await;
    let mut writers = Vec::new();
    for w in 0..16u64 {
        let mut c = bench.connect();
        writers.push(tokio::spawn(async move {
            let id = format!("p{w}");
            let epoch = if w % 2 == 0 { Some(open(&mut c, "s", &id).await) } else { None };
            let (mut pending, mut seq) = (Vec::new(), 0u64);
            for i in 0..50u64 {
                let texts: Vec<String> = (0..=i % 3).map(|j| format!("{w}:{i}.{j}")).collect();
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                let request = match epoch {
                    Some(epoch) => stamped("s", &id, epoch, seq, &texts),
                    None => plain("s", &texts),
                };
                seq += texts.len() as u64;
                pending.push((texts.len() as u64, c.append(request).await));
            }
            let mut out = Vec::new();
            for (count, answer) in pending {
                let done = soon(answer).await.unwrap();
                assert_eq!(done.last_offset.unwrap() - done.first_offset.unwrap() + 1, count);
                out.push((done.first_offset.unwrap(), count));
            }
            out
        }));
    }
    let mut taken = BTreeSet::new();
    for writer in writers {
        let ranges = soon(writer).await.unwrap();
        assert!(ranges.is_sorted_by_key(|(first, _)| *first), "one connection's appends keep their order");
        for (first, count) in ranges {
            for offset in first..first + count {
                assert!(taken.insert(offset), "offset {offset} was given out twice");
            }
        }
    }
    let total = taken.len() as u64;
    assert_eq!((taken.first(), taken.last()), (Some(&0), Some(&(total - 1))), "I-5: dense");
    let texts = bench.texts("s").await;
    assert_eq!(texts.len() as u64, total);
    assert_eq!(texts.iter().collect::<BTreeSet<_>>().len() as u64, total);
    let bench = bench.crash().await;
    assert_eq!(bench.texts("s").await, texts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditional_appends_of_many_are_linearizable() {
    let bench = Bench::with_stream("s").await;
    let mut writers = Vec::new();
    for w in 0..8 {
        let broker = bench.broker.clone();
        writers.push(tokio::spawn(async move {
            let (mut next, mut won) = (0, 0);
            while next < 60 {
                match broker.append(&OPERATOR, expecting(plain("s", &[&format!("{w} saw {next}")]), next)).await {
                    Ok(done) => {
                        assert_eq!(done.first_offset, Some(next));
                        (next, won) = (next + 1, won + 1);
                    }
                    Err(error) => {
                        assert_eq!(error.code, Code::ConditionFailed, "{error:?}");
                        let seen = detail(&error, "next_offset");
                        assert!(seen > next, "a condition fails only when the stream has moved on: {seen} after {next}");
                        next = seen;
                    }
                }
            }
            won
        }));
    }
    let mut won = 0;
    for writer in writers {
        won += soon(writer).await.unwrap();
    }
    let texts = bench.texts("s").await;
    assert_eq!(texts.len(), won);
    assert!(texts.iter().enumerate().all(|(i, text)| text.ends_with(&format!("saw {i}"))), "{texts:?}");
}

#[tokio::test]
async fn a_restart_finds_everything_as_it_was() {
    for clean in [true, false] {
        let bench = Bench::with_stream("s").await;
        bench.create("empty").await;
        bench.put("s", &["a", "b"]).await;
        bench.subscribe_new("s", "x").await;
        let (stream, empty, subscription) = (bench.describe("s").await, bench.describe("empty").await, bench.subscription("s", "x").await);
        let bench = if clean { bench.restart().await } else { bench.crash().await };
        assert_eq!(bench.describe("s").await, stream);
        assert_eq!(bench.describe("empty").await, empty);
        let found = bench.subscription("s", "x").await;
        let lag = Lag { seconds: found.lag.seconds, ..subscription.lag };
        assert_eq!(found, SubscriptionInfo { lag, ..subscription });
        assert_eq!(bench.put("s", &["c"]).await, (2, 2));
        assert!(bench.broker.health().ready);
    }
}

#[tokio::test]
async fn time_never_falls_even_when_the_clock_did() {
    let bench = Bench::with_stream("s").await;
    let mut last = TimeUs(0);
    for _ in 0..30 {
        bench.put("s", &["a"]).await;
        let time = soon(bench.broker.event(&OPERATOR, &name("s"), Which::Last)).await.unwrap().batch().head.time;
        assert!(time >= last);
        last = time;
    }
}
