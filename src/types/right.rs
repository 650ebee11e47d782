//! Rights on a stream, and what calls need of them.
//!
//! A right is a set of actions, so that the effective right of a source, its own and its owner's together, is an intersection.

use std::fmt;

/// What a call needs on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Read events, use subscriptions.
    Read,
    /// Append events.
    Write,
    /// Configure, trim, close, delete, give rights to others.
    Admin,
}

impl Action {
    const fn bit(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
            Self::Admin => 4,
        }
    }

    /// The least right that allows it.
    pub const fn right(self) -> Right {
        match self {
            Self::Read => Right::ReadOnly,
            Self::Write => Right::WriteOnly,
            Self::Admin => Right::Admin,
        }
    }
}

/// What a principal has on a stream (`surfaces.md` E7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// Nothing: the stream is hidden.
    #[default]
    None,
    /// Read.
    ReadOnly,
    /// Append.
    WriteOnly,
    /// Both.
    ReadWrite,
    /// Both, configure, and give rights.
    Admin,
    /// Admin on every stream of the server. It is a user's, not a stream's.
    Root,
}

impl Right {
    /// Every right, the least first.
    pub const ALL: [Self; 6] = [Self::None, Self::ReadOnly, Self::WriteOnly, Self::ReadWrite, Self::Admin, Self::Root];

    const fn bits(self) -> u8 {
        match self {
            Self::None => 0,
            Self::ReadOnly => 1,
            Self::WriteOnly => 2,
            Self::ReadWrite => 3,
            Self::Admin => 7,
            Self::Root => 15,
        }
    }

    /// The word, in the form that answers use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::ReadOnly => "ReadOnly",
            Self::WriteOnly => "WriteOnly",
            Self::ReadWrite => "ReadWrite",
            Self::Admin => "Admin",
            Self::Root => "Root",
        }
    }

    /// A word in any ASCII case; `NoRight`, the real Evernest's own word, is `None`.
    pub fn parse(word: &str) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|right| right.as_str().eq_ignore_ascii_case(word));
        found.or_else(|| word.eq_ignore_ascii_case("NoRight").then_some(Self::None))
    }

    /// What both allow.
    pub fn and(self, other: Self) -> Self {
        let both = self.bits() & other.bits();
        // The sets are closed under intersection.
        Self::ALL.into_iter().find(|right| right.bits() == both).unwrap_or_default()
    }

    /// Does it allow this?
    pub const fn allows(self, action: Action) -> bool {
        self.bits() & action.bit() != 0
    }

    /// The number in stored rows.
    pub const fn stored(self) -> u32 {
        self.bits() as u32
    }

    /// Reads [`Right::stored`] back; a number that no version wrote is no right.
    pub fn from_stored(number: u32) -> Self {
        Self::ALL.into_iter().find(|right| right.stored() == number).unwrap_or_default()
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intersection_allows_what_both_allow_and_nothing_else() {
        for a in Right::ALL {
            for b in Right::ALL {
                assert_eq!(a.and(b), b.and(a));
                for action in [Action::Read, Action::Write, Action::Admin] {
                    assert_eq!(a.and(b).allows(action), a.allows(action) && b.allows(action), "{a} and {b}: {action:?}");
                }
            }
        }
    }

    #[test]
    fn words_are_read_in_any_case_and_numbers_back() {
        for right in Right::ALL {
            assert_eq!(Right::parse(&right.as_str().to_ascii_uppercase()), Some(right));
            assert_eq!(Right::from_stored(right.stored()), right);
        }
        assert_eq!(Right::parse("noright"), Some(Right::None));
        for bad in ["", "Read", "ReadOnly ", "Ädmin", "root\0"] {
            assert_eq!(Right::parse(bad), None, "{bad:?}");
        }
        assert_eq!(Right::from_stored(5), Right::None);
    }

    #[test]
    fn the_right_an_action_needs_allows_it() {
        for action in [Action::Read, Action::Write, Action::Admin] {
            assert!(action.right().allows(action));
        }
    }
}
