//! Paths of Evernest: which call a path means, in any case, and what it brings along.
//!
//! Split by hand, since words match in any ASCII case, and since a path that ends too early is a call whose arguments are missing.

use super::arguments::Argument::{self, EventId, FromEventId, Right, SourceId, StreamId, ToEventId, UserId};
use crate::broker::Plane;

/// Root words of this face.
const ROOTS: [&str; 4] = ["Right", "Source", "Stream", "User"];

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The right of the calling source on a stream.
    OwnRight,
    /// The right of one of the user's sources.
    RightOf,
    /// Sets that.
    SetRight,
    /// The calling source.
    ThisSource,
    /// One of the user's sources.
    SourceOf,
    /// A new source.
    NewSource,
    /// A new stream.
    NewStream,
    /// A stream.
    Stream,
    /// One event.
    Pull,
    /// Events from one to another.
    PullRange,
    /// Any event.
    PullRandom,
    /// Appends an event.
    Push,
    /// The calling user.
    ThisUser,
    /// Any user's public part.
    UserOf,
}

impl Kind {
    /// Does it move events?
    pub fn plane(self) -> Plane {
        match self {
            Self::Pull | Self::PullRange | Self::PullRandom | Self::Push => Plane::Data,
            Self::OwnRight | Self::RightOf | Self::SetRight | Self::ThisSource | Self::SourceOf | Self::NewSource => Plane::Control,
            Self::NewStream | Self::Stream | Self::ThisUser | Self::UserOf => Plane::Control,
        }
    }
}

impl Kind {
    /// How its path is written.
    pub fn pattern(self) -> &'static str {
        match self {
            Self::OwnRight => "/Right/{StreamId}",
            Self::RightOf => "/Right/{SourceId}/{StreamId}",
            Self::SetRight => "/Right/{SourceId}/{StreamId}/Set/{Right}",
            Self::ThisSource => "/Source",
            Self::SourceOf => "/Source/{SourceId}",
            Self::NewSource => "/Source/New",
            Self::NewStream => "/Stream/New",
            Self::Stream => "/Stream/{StreamId}",
            Self::Pull => "/Stream/{StreamId}/Pull/{EventId}",
            Self::PullRange => "/Stream/{StreamId}/Pull/{FromEventId}/{ToEventId}",
            Self::PullRandom => "/Stream/{StreamId}/Pull/Random",
            Self::Push => "/Stream/{StreamId}/Push",
            Self::ThisUser => "/User",
            Self::UserOf => "/User/{UserId}",
        }
    }
}

/// A call, and the arguments that stood in its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which call.
    pub kind: Kind,
    /// As they were written; absent where the path ended before them, or left them empty.
    pub path: Vec<(Argument, String)>,
}

impl Route {
    fn new(kind: Kind, path: &[(Argument, &str)]) -> Self {
        Self { kind, path: path.iter().filter(|(_, text)| !text.is_empty()).map(|(argument, text)| (*argument, (*text).to_owned())).collect() }
    }
}

/// Is this path one of ours?
pub fn is_ours(path: &str) -> bool {
    let root = path.strip_prefix('/').and_then(|rest| rest.split('/').next()).unwrap_or_default();
    ROOTS.iter().any(|word| word.eq_ignore_ascii_case(root))
}

/// The call that a path of ours means; `None` for an action that does not exist.
pub fn find(path: &str) -> Option<Route> {
    let decoded: Option<Vec<String>> = path.trim_matches('/').split('/').map(decode).collect();
    let decoded = decoded?;
    let mut parts = decoded.iter().map(String::as_str);
    let root = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    let is = |text: &str, word: &str| text.eq_ignore_ascii_case(word);
    if is(root, "Right") {
        return Some(match rest.as_slice() {
            [] => Route::new(Kind::OwnRight, &[]),
            [stream] => Route::new(Kind::OwnRight, &[(StreamId, stream)]),
            [source, stream] => Route::new(Kind::RightOf, &[(SourceId, source), (StreamId, stream)]),
            [source, stream, set] if is(set, "Set") => Route::new(Kind::SetRight, &[(SourceId, source), (StreamId, stream)]),
            [source, stream, set, right] if is(set, "Set") => Route::new(Kind::SetRight, &[(SourceId, source), (StreamId, stream), (Right, right)]),
            _ => return None,
        });
    }
    if is(root, "Source") {
        return Some(match rest.as_slice() {
            [] => Route::new(Kind::ThisSource, &[]),
            [new] if is(new, "New") => Route::new(Kind::NewSource, &[]),
            [source] => Route::new(Kind::SourceOf, &[(SourceId, source)]),
            _ => return None,
        });
    }
    if is(root, "User") {
        return Some(match rest.as_slice() {
            [] => Route::new(Kind::ThisUser, &[]),
            [user] => Route::new(Kind::UserOf, &[(UserId, user)]),
            _ => return None,
        });
    }
    if !is(root, "Stream") {
        return None;
    }
    Some(match rest.as_slice() {
        [] => Route::new(Kind::Stream, &[]),
        [new] if is(new, "New") => Route::new(Kind::NewStream, &[]),
        [stream] => Route::new(Kind::Stream, &[(StreamId, stream)]),
        [stream, push] if is(push, "Push") => Route::new(Kind::Push, &[(StreamId, stream)]),
        [stream, pull] if is(pull, "Pull") => Route::new(Kind::Pull, &[(StreamId, stream)]),
        [stream, pull, random] if is(pull, "Pull") && is(random, "Random") => Route::new(Kind::PullRandom, &[(StreamId, stream)]),
        [stream, pull, event] if is(pull, "Pull") => Route::new(Kind::Pull, &[(StreamId, stream), (EventId, event)]),
        [stream, pull, from, to] if is(pull, "Pull") => Route::new(Kind::PullRange, &[(StreamId, stream), (FromEventId, from), (ToEventId, to)]),
        _ => return None,
    })
}

/// One part of a path: `%XX`, but `+` is a plus there.
fn decode(part: &str) -> Option<String> {
    if part.contains('%') { crate::edge::http::query::decode(&part.replace('+', "%2B")) } else { Some(part.to_owned()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(path: &str) -> Option<(Kind, Vec<(Argument, String)>)> {
        find(path).map(|route| (route.kind, route.path))
    }

    #[test]
    fn each_path_of_the_table_is_its_call() {
        for (path, kind, arguments) in [
            ("/Right/1", Kind::OwnRight, &[(StreamId, "1")][..]),
            ("/Right/1/2", Kind::RightOf, &[(SourceId, "1"), (StreamId, "2")]),
            ("/Right/1/2/Set/Admin", Kind::SetRight, &[(SourceId, "1"), (StreamId, "2"), (Right, "Admin")]),
            ("/Source", Kind::ThisSource, &[]),
            ("/Source/7", Kind::SourceOf, &[(SourceId, "7")]),
            ("/Source/New", Kind::NewSource, &[]),
            ("/Stream/New", Kind::NewStream, &[]),
            ("/Stream/3", Kind::Stream, &[(StreamId, "3")]),
            ("/Stream/3/Pull/-1", Kind::Pull, &[(StreamId, "3"), (EventId, "-1")]),
            ("/Stream/3/Pull/1/2", Kind::PullRange, &[(StreamId, "3"), (FromEventId, "1"), (ToEventId, "2")]),
            ("/Stream/3/Pull/Random", Kind::PullRandom, &[(StreamId, "3")]),
            ("/Stream/3/Push", Kind::Push, &[(StreamId, "3")]),
            ("/User", Kind::ThisUser, &[]),
            ("/User/5", Kind::UserOf, &[(UserId, "5")]),
            // Incomplete ones are the call they began.
            ("/Right", Kind::OwnRight, &[]),
            ("/Right/1/2/Set", Kind::SetRight, &[(SourceId, "1"), (StreamId, "2")]),
            ("/Stream", Kind::Stream, &[]),
            ("/Stream/3/Pull", Kind::Pull, &[(StreamId, "3")]),
            ("/Stream//Push", Kind::Push, &[]),
        ] {
            let want = arguments.iter().map(|(argument, text)| (*argument, (*text).to_owned())).collect();
            assert_eq!(found(path), Some((kind, want)), "{path}");
        }
        assert_eq!(found("/Stream/%33/P%75sh"), found("/Stream/3/Push"));
    }

    #[test]
    fn unknown_actions_are_no_call() {
        for path in
            ["/Stream/1/Foo", "/Stream/1/Push/2", "/Stream/1/Pull/1/2/3", "/Right/1/2/Foo", "/Right/1/2/Set/Admin/x", "/Source/New/x", "/User/1/2", "/User/%zz"]
        {
            assert_eq!(find(path), None, "{path}");
        }
    }

    #[test]
    fn only_the_four_root_words_are_ours() {
        for path in ["/stream", "/STREAM/1", "/Right/", "/source/New", "/uSeR/1"] {
            assert!(is_ours(path), "{path}");
        }
        for path in ["/", "/v1/streams", "/streams", "/Streamer/1", "/v1/Stream", "//Stream", "/livez", "stream"] {
            assert!(!is_ours(path), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_path_means_the_same_in_every_case_and_with_a_trailing_slash(
            index in 0usize..9, upper in proptest::collection::vec(any::<bool>(), 40), slash: bool,
        ) {
            let paths = [
                "/right/1", "/right/1/2", "/right/1/2/set", "/source/new", "/stream/new", "/stream/3/pull/4", "/stream/3/pull/random", "/stream/3/push", "/user",
            ];
            let cased: String = paths[index].chars().zip(upper).map(|(c, up)| if up { c.to_ascii_uppercase() } else { c }).collect();
            prop_assert!(is_ours(&cased));
            prop_assert_eq!(find(&format!("{cased}{}", if slash { "/" } else { "" })), find(paths[index]));
        }
    }
}
