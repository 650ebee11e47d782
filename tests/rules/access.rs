//! Users, sources, keys and rights as rows of the one commit order: what a death between two commits leaves.

use tidelog::broker::{Action, NewSource, NewUser, Principal, PrincipalRef};
use tidelog::types::{Right, UserName};

use crate::support::*;

fn user(text: &str) -> UserName {
    UserName::parse(text).expect("a name")
}

async fn new_user(bench: &Bench, text: &str) {
    let new = NewUser { name: user(text), password: None, root: false };
    soon(bench.broker.create_user(&OPERATOR, new)).await.expect("a user");
}

/// As that user, by its certificate.
async fn as_user(bench: &Bench, text: &str) -> Principal {
    soon(bench.broker.certificate(text)).await.expect("the user is there")
}

async fn new_source(bench: &Bench, who: &Principal) -> (u64, String) {
    let new = NewSource { name: "feed".into(), description: String::new(), owner: None };
    let (info, key) = soon(bench.broker.create_source(who, new)).await.expect("a source");
    (info.id, key)
}

/// A user with a source that may read a stream of the operator's; the source's key.
async fn peopled() -> (Bench, u64, String) {
    let bench = Bench::with_stream("s").await;
    new_user(&bench, "alice").await;
    let alice = as_user(&bench, "alice").await;
    let (id, key) = new_source(&bench, &alice).await;
    for principal in [PrincipalRef::User(user("alice")), PrincipalRef::Source(id)] {
        soon(bench.broker.set_right(&OPERATOR, &name("s"), &principal, Right::ReadOnly)).await.expect("a right");
    }
    (bench, id, key)
}

async fn reads(bench: &Bench, key: &str) -> Result<()> {
    let who = soon(bench.broker.authenticate(key)).await?;
    soon(bench.broker.may(&who, &name("s"), Action::Read)).await
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_crash() {
    let (bench, id, key) = peopled().await;
    let bench = bench.crash().await;
    reads(&bench, &key).await.unwrap();
    let right = soon(bench.broker.right(&OPERATOR, &name("s"), &PrincipalRef::Source(id))).await.unwrap();
    assert_eq!((right.right, right.effective), (Right::ReadOnly, Right::ReadOnly));
    let alice = as_user(&bench, "alice").await;
    let operation = bench.broker.operation_id();
    soon(bench.broker.create_stream_as(&alice, NewStream::named(name("hers")), operation)).await.unwrap();
    let bench = bench.crash().await;
    let alice = as_user(&bench, "alice").await;
    let found = soon(bench.broker.operation(&alice, operation)).await.unwrap();
    assert_eq!((found.status_code, found.command.as_str(), found.stream.as_str()), (200, "stream.Create", "hers"));
    assert_eq!(soon(bench.broker.source_key(&OPERATOR, id)).await.unwrap(), key);
}

/// A change is one commit: before it all is as it was, after it all is as it was asked.
#[tokio::test]
async fn a_change_that_dies_on_its_way_to_the_disk_has_not_begun() {
    let (bench, id, key) = peopled().await;
    bench.engine.stop();
    let broker = bench.broker.clone();
    let changing = tokio::spawn(async move { broker.rotate_source(&OPERATOR, id).await });
    bench.engine.waiting().await;
    let bench = bench.crash().await;
    changing.abort();
    reads(&bench, &key).await.expect("the old key is good, since the new one never was");
    // Nor is there an operation that tells of a change that never was.
    bench.engine.stop();
    let (broker, operation) = (bench.broker.clone(), bench.broker.operation_id());
    let setting = tokio::spawn(async move { broker.set_right_as(&OPERATOR, &name("s"), &PrincipalRef::Source(id), Right::None, operation).await });
    bench.engine.waiting().await;
    let bench = bench.crash().await;
    setting.abort();
    reads(&bench, &key).await.expect("the right is there");
    refused(soon(bench.broker.operation(&OPERATOR, operation)).await, Code::NotFound, "");
    let (_, new) = soon(bench.broker.rotate_source(&OPERATOR, id)).await.unwrap();
    let bench = bench.crash().await;
    refused(reads(&bench, &key).await, Code::Unauthenticated, "");
    reads(&bench, &new).await.unwrap();
}

#[tokio::test]
async fn a_refused_commit_of_an_access_change_leaves_nothing_in_memory() {
    let (bench, id, key) = peopled().await;
    let right = PrincipalRef::Source(id);
    reads(&bench, &key).await.unwrap();
    bench.engine.refuse_next(EngineError::Full("the test's".into()));
    assert!(soon(bench.broker.set_right(&OPERATOR, &name("s"), &right, Right::None)).await.is_err());
    reads(&bench, &key).await.expect("it was not taken away");
    soon(bench.broker.set_right(&OPERATOR, &name("s"), &right, Right::None)).await.unwrap();
    refused(reads(&bench, &key).await, Code::NotFound, "");
}

/// However many of its commits are through when the process dies: nothing of the user is good any more, and the deletion ends.
#[tokio::test]
async fn a_deletion_of_a_user_that_dies_between_two_commits_goes_on() {
    let mut died = 0;
    for commits in 1.. {
        let (bench, _, key) = peopled().await;
        bench.engine.stop();
        let broker = bench.broker.clone();
        let deleting = tokio::spawn(async move { broker.delete_user(&OPERATOR, &user("alice")).await });
        bench.engine.waiting().await;
        for _ in 1..commits {
            bench.engine.step(1).await;
            if deleting.is_finished() {
                break;
            }
            tokio::select! { () = bench.engine.waiting() => {}, () = async { while !deleting.is_finished() { tokio::task::yield_now().await } } => {} }
        }
        let done = deleting.is_finished();
        if !done {
            bench.engine.step(1).await;
            died += 1;
        }
        let bench = bench.crash().await;
        deleting.abort();
        refused(reads(&bench, &key).await, Code::Unauthenticated, "");
        soon(bench.broker.finish_deletions_of_users()).await.unwrap();
        refused(soon(bench.broker.user(&OPERATOR, &user("alice"))).await, Code::NotFound, "");
        assert!(soon(bench.broker.sources(&OPERATOR, ListQuery::default())).await.unwrap().items.is_empty());
        assert!(soon(bench.broker.rights(&OPERATOR, &name("s"), ListQuery::default())).await.unwrap().items.is_empty());
        new_user(&bench, "Alice").await;
        if done {
            break;
        }
    }
    assert!(died >= 4, "it died at {died} places only");
}

#[tokio::test]
async fn a_user_that_makes_a_stream_while_it_is_deleted_is_not() {
    let (bench, ..) = peopled().await;
    let alice = as_user(&bench, "alice").await;
    bench.engine.stop();
    let broker = bench.broker.clone();
    let making = tokio::spawn(async move { broker.create_stream(&alice, NewStream::named(name("hers"))).await });
    bench.engine.waiting().await;
    // On its way to the disk, the stream is not to be seen yet.
    let broker = bench.broker.clone();
    let deleting = tokio::spawn(async move { broker.delete_user(&OPERATOR, &user("alice")).await });
    tokio::task::yield_now().await;
    bench.engine.go();
    soon(making).await.unwrap().unwrap();
    refused(soon(deleting).await.unwrap(), Code::InUse, "");
    let alice = as_user(&bench, "alice").await;
    soon(bench.broker.may(&alice, &name("hers"), Action::Admin)).await.unwrap();
}

#[tokio::test]
async fn a_user_that_is_being_deleted_makes_no_stream() {
    let (bench, ..) = peopled().await;
    let alice = as_user(&bench, "alice").await;
    bench.engine.stop();
    let broker = bench.broker.clone();
    let deleting = tokio::spawn(async move { broker.delete_user(&OPERATOR, &user("alice")).await });
    bench.engine.waiting().await;
    // The credential is still good: what ends it is on its way to the disk.
    let broker = bench.broker.clone();
    let making = tokio::spawn(async move { broker.create_stream(&alice, NewStream::named(name("hers"))).await });
    tokio::task::yield_now().await;
    bench.engine.go();
    soon(deleting).await.unwrap().unwrap();
    assert!(soon(making).await.unwrap().is_err());
    refused(soon(bench.broker.stream(&OPERATOR, &name("hers"))).await, Code::NotFound, "");
}
