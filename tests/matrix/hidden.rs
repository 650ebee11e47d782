//! Nobody learns of a stream by how its absence is told (P-11): to a caller without a right a stream that exists and one that does not
//! are answered alike, to the letter, but for its name.

use tidelog::broker::NewStream;
use tidelog::types::Right;

use crate::calls::NOT_ASKED;
use crate::people::{Kind, OPERATOR, Town, stream};
use crate::table::{Face, rows};

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_right_is_answered_as_one_that_does_not_exist() {
    let town = Town::open().await;
    let missing = stream("s-m");
    for kind in [Kind::Console, Kind::Certificate, Kind::UserKey, Kind::SourceKey, Kind::Node, Kind::Anonymous] {
        let person = town.person(kind);
        let mut grpc = person.grpc().await;
        for row in rows().iter().filter(|row| row.on_a_stream() && (row.built || row.face == Face::Rest) && NOT_ASKED.iter().all(|(call, _)| row.call != *call))
        {
            let hidden = town.stage(kind, Right::None).await;
            let (there, absent) = (town.ask(person, &mut grpc, row, &hidden).await, town.ask(person, &mut grpc, row, &missing).await);
            assert_eq!(there.len(), absent.len());
            for (there, absent) in there.iter().zip(&absent) {
                assert!(there.code.is_some() || row.call == "auth", "{} as {kind:?} is not refused: {there:?}", row.call);
                assert_eq!(there.code, absent.code, "{} as {kind:?}", row.call);
                let told = |text: &str, name: &str| {
                    let text = text.replace(name, "NAME");
                    // The length of the body says how long the name is, and the date what time it is.
                    text.lines().filter(|line| !line.starts_with("content-length") && !line.starts_with("date:")).collect::<Vec<_>>().join("\n")
                };
                assert_eq!(told(&there.text, hidden.as_str()), told(&absent.text, "s-m"), "{} as {kind:?}", row.call);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_show_what_the_caller_may_see_and_nothing_else() {
    let town = Town::open().await;
    for kind in [Kind::Console, Kind::Certificate, Kind::UserKey, Kind::SourceKey] {
        let person = town.person(kind);
        let mut seen = Vec::new();
        for right in [Right::None, Right::ReadOnly, Right::WriteOnly, Right::Admin] {
            let name = town.stage(kind, right).await;
            seen.push((name, right != Right::None));
        }
        let told = person.rest("GET", "/v1/streams", None, "").await.text;
        for (name, shown) in &seen {
            assert_eq!(told.contains(&format!("/v1/streams/{name}\"")), *shown, "{name} in {told} as {kind:?}");
        }
        for (name, _) in seen {
            town.grant(kind, &name, Right::None).await;
        }
        let told = person.rest("GET", "/v1/streams", None, "").await;
        assert!(!told.text.contains("/v1/streams/s-"), "{told:?} as {kind:?}");
    }
    town.broker.create_stream(&OPERATOR, NewStream::named(stream("s-all"))).await.expect("a stream");
    for kind in [Kind::Operator, Kind::Root] {
        assert!(town.person(kind).rest("GET", "/v1/streams", None, "").await.text.contains("/v1/streams/s-all\""));
    }
}

/// Rights that users set for their own sources are no way to look for streams.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_cannot_find_a_hidden_stream_by_giving_a_source_of_its_own_a_right_on_it() {
    let town = Town::open().await;
    let owner = town.broker.log_in("owner", crate::people::PASSWORD).await.expect("a session").token;
    let owner = town.broker.authenticate(&owner).await.expect("the owner");
    let hidden = stream("s-h");
    town.broker.create_stream(&OPERATOR, NewStream::named(hidden.clone())).await.expect("a stream");
    let own = tidelog::broker::PrincipalRef::Source(town.source);
    for name in [&hidden, &stream("s-m")] {
        let set = town.broker.set_right(&owner, name, &own, Right::ReadOnly).await.expect_err("it is hidden");
        let looked = town.broker.right(&owner, name, &own).await.expect_err("it is hidden");
        for error in [set, looked] {
            assert_eq!((error.code, error.message.replace(name.as_str(), "NAME")), (tidelog::types::Code::NotFound, "Stream NAME was not found.".into()));
        }
    }
    town.broker.set_right(&OPERATOR, &hidden, &tidelog::broker::PrincipalRef::User(crate::people::user("owner")), Right::ReadOnly).await.expect("a right");
    let set = town.broker.set_right(&owner, &hidden, &own, Right::ReadWrite).await.expect("a source of its own, on a stream it sees");
    assert_eq!((set.right, set.effective), (Right::ReadWrite, Right::ReadOnly));
}
