//! What goes wrong, in Evernest's words: its error words, their statuses, and a sentence that helps.

use axum::http::StatusCode;

use super::arguments::Argument;
use crate::types::{Code, Error};

/// Evernest's error words (`surfaces.md` 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    BadArgument,
    BadRequest,
    MissingArgument,
    NotImplemented,
    ReadAccessDenied,
    WriteAccessDenied,
    AdminAccessDenied,
    EmptyStream,
    InternalError,
}

impl Word {
    const fn as_str(self) -> &'static str {
        match self {
            Self::BadArgument => "BadArgument",
            Self::BadRequest => "BadRequest",
            Self::MissingArgument => "MissingArgument",
            Self::NotImplemented => "NotImplemented",
            Self::ReadAccessDenied => "ReadAccessDenied",
            Self::WriteAccessDenied => "WriteAccessDenied",
            Self::AdminAccessDenied => "AdminAccessDenied",
            Self::EmptyStream => "EmptyStream",
            Self::InternalError => "InternalError",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::BadArgument | Self::BadRequest | Self::MissingArgument => StatusCode::BAD_REQUEST,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::ReadAccessDenied | Self::WriteAccessDenied | Self::AdminAccessDenied => StatusCode::FORBIDDEN,
            Self::EmptyStream => StatusCode::NOT_FOUND,
            Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// An error on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    word: Word,
    status: StatusCode,
    help: String,
    arguments: Vec<&'static str>,
    retry_after: Option<u64>,
}

/// Which access was missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read.
    Read,
    /// To write.
    Write,
}

impl Fault {
    fn new(word: Word, help: impl Into<String>) -> Self {
        Self { word, status: word.status(), help: help.into(), arguments: Vec::new(), retry_after: None }
    }

    /// The method is neither GET nor POST.
    pub fn method(method: &str) -> Self {
        let help = format!("The method is {}; every call here takes GET and POST, and no other.", crate::types::name::quote(method));
        Self { status: StatusCode::METHOD_NOT_ALLOWED, ..Self::new(Word::BadRequest, help) }
    }

    /// The request cannot be read.
    pub fn bad_request(help: &str) -> Self {
        Self::new(Word::BadRequest, help)
    }

    /// No such action.
    pub fn not_implemented() -> Self {
        Self::new(Word::NotImplemented, "There is no such action; the calls are below /Right, /Source, /Stream and /User, as docs/evernest.md lists them.")
    }

    /// These are not there.
    pub fn missing(arguments: &[Argument], pattern: &str) -> Self {
        let (inputs, parts): (Vec<Argument>, Vec<Argument>) = arguments.iter().partition(|argument| argument.is_input());
        let mut help = Vec::new();
        if !inputs.is_empty() {
            let how = if inputs.len() == 1 { "as a URL parameter" } else { "as URL parameters" };
            help.push(format!("Send {} in the JSON body or {how}.", listed(&inputs)));
        }
        if !parts.is_empty() {
            help.push(format!("Name {} in the path, as in {pattern}.", listed(&parts)));
        }
        let arguments = arguments.iter().map(|argument| argument.as_str()).collect();
        Self { arguments, ..Self::new(Word::MissingArgument, help.join(" ")) }
    }

    /// These are wrong, each with what was expected.
    pub fn bad(arguments: Vec<(Argument, String)>) -> Self {
        let help: Vec<&str> = arguments.iter().map(|(_, help)| help.as_str()).filter(|help| !help.is_empty()).collect();
        let fault = Self::new(Word::BadArgument, help.join(" "));
        Self { arguments: arguments.iter().map(|(argument, _)| argument.as_str()).collect(), ..fault }
    }

    /// This one is wrong.
    pub fn bad_one(argument: Argument, help: impl Into<String>) -> Self {
        Self::bad(vec![(argument, help.into())])
    }

    /// The key has too little right.
    pub fn denied(access: Access, help: impl Into<String>) -> Self {
        let word = match access {
            Access::Read => Word::ReadAccessDenied,
            Access::Write => Word::WriteAccessDenied,
        };
        Self::new(word, help)
    }

    /// The stream has no event.
    pub fn empty_stream() -> Self {
        Self::new(Word::EmptyStream, "The stream has no event; push one first.")
    }

    /// A fault of ours. The reason is logged, and not told.
    pub fn internal(why: &str) -> Self {
        tracing::error!("Evernest: {why}");
        Self::new(Word::InternalError, "The broker made a mistake, which is in its log. Whether the call had an effect is not known.")
    }

    /// Whatever else the broker says: what no argument of the call is to blame for.
    pub fn other(error: Error) -> Self {
        let after = error.details.get("retry_after_s").and_then(serde_json::Value::as_f64).map_or(1, |s| s.ceil().clamp(1.0, 3600.0) as u64);
        match error.code {
            Code::Internal => Self::internal(&error.message),
            // What proxies and client libraries act on (the introduction of `surfaces.md`).
            Code::RateLimited | Code::QuotaExceeded => {
                Self { status: StatusCode::TOO_MANY_REQUESTS, retry_after: Some(after), ..Self::new(Word::InternalError, error.into_body().message) }
            }
            Code::Overloaded | Code::Unavailable | Code::StorageFull | Code::StorageFailed | Code::OutcomeUnknown | Code::Busy => {
                Self { retry_after: Some(after), ..Self::new(Word::InternalError, error.into_body().message) }
            }
            Code::AccessDenied | Code::UserKeyForbidden | Code::EntitlementRequired => Self::new(Word::AdminAccessDenied, error.into_body().message),
            Code::BadParameter | Code::TooLarge => Self::new(Word::BadRequest, error.into_body().message),
            _ => Self::new(Word::InternalError, error.into_body().message),
        }
    }

    /// The error word.
    pub fn word(&self) -> &'static str {
        self.word.as_str()
    }

    /// The sentence.
    pub fn help(&self) -> &str {
        &self.help
    }

    /// Names of what was missing or wrong.
    pub fn arguments(&self) -> &[&'static str] {
        &self.arguments
    }

    /// HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// When to come back, in seconds.
    pub fn retry_after(&self) -> Option<u64> {
        self.retry_after
    }
}

/// `A`, `A and B`, `A, B and C`.
fn listed(arguments: &[Argument]) -> String {
    let names: Vec<&str> = arguments.iter().map(|argument| argument.as_str()).collect();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_helps_and_none_is_a_success() {
        for &code in Code::ALL {
            let fault = Fault::other(Error::new(code, "What was wrong."));
            assert!(!fault.help().is_empty() && (400..=599).contains(&fault.status().as_u16()), "{code}");
        }
        for fault in [Fault::method("PUT"), Fault::not_implemented(), Fault::empty_stream(), Fault::internal("a test"), Fault::denied(Access::Write, "No.")] {
            assert!(!fault.help().is_empty() && fault.status().as_u16() >= 400, "{fault:?}");
        }
        assert_eq!(Fault::not_implemented().status(), 501);
        assert_eq!(Fault::other(Error::internal("secret of ours")).help().find("secret"), None);
    }

    #[test]
    fn an_overload_says_when_to_come_back() {
        let fault = Fault::other(Error::new(Code::RateLimited, "Too many.").detail("retry_after_s", 7));
        assert_eq!((fault.status(), fault.retry_after()), (StatusCode::TOO_MANY_REQUESTS, Some(7)));
        let fault = Fault::other(Error::new(Code::Overloaded, "Too much."));
        assert_eq!((fault.word(), fault.status().as_u16(), fault.retry_after()), ("InternalError", 500, Some(1)));
    }
}
