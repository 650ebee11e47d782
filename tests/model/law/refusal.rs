//! Refusals as the tables have them, and whether the broker said the same.

use serde_json::Value;

use super::{Said, Verdict};
use crate::support::*;

/// A refusal as the tables have it: code, rule, the numbers in its details; of a commit also which part, and its cause.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub code: Code,
    pub rule: Option<&'static str>,
    pub details: Vec<(&'static str, u64)>,
    pub part: Option<Box<(&'static str, u64, Refusal)>>,
}

pub fn refuse<T>(code: Code, rule: Option<&'static str>, details: &[(&'static str, u64)]) -> Result<T, Refusal> {
    Err(Refusal { code, rule, details: details.to_vec(), part: None })
}

impl Refusal {
    /// T-1: the cause of a refused commit.
    pub fn of_part(self, part: &'static str, index: usize) -> Self {
        Self { code: Code::TxnPartFailed, rule: Some("T-1"), details: Vec::new(), part: Some(Box::new((part, index as u64, self))) }
    }

    fn matches(&self, code: &str, rule: Option<&str>, details: &dyn Fn(&str) -> Option<Value>) -> bool {
        code == self.code.as_str()
            && rule == self.rule
            && self.details.iter().all(|(name, number)| details(name).is_some_and(|v| v.as_u64().or(v.as_bool().map(u64::from)) == Some(*number)))
    }

    fn is(&self, error: &Error) -> bool {
        let Some(part) = &self.part else {
            return self.matches(error.code.as_str(), error.rule.as_deref(), &|name| error.details.get(name).cloned()) && error.retry == self.code.retry();
        };
        let (list, index, cause) = &**part;
        let told = |field: &str| error.details.get("cause").and_then(|told| told.get(field)).cloned();
        let text = |field: &str| told(field).and_then(|v| v.as_str().map(str::to_owned));
        (error.code, error.rule.as_deref(), error.retry) == (self.code, self.rule, cause.code.retry())
            && error.details.get("part").and_then(Value::as_str) == Some(list)
            && error.details.get("index").and_then(Value::as_u64) == Some(*index)
            && cause.matches(&text("code").unwrap_or_default(), text("rule").as_deref(), &|name| told("details").and_then(|all| all.get(name).cloned()))
    }
}

/// The broker said what the law says, and that it had no effect where it refused.
pub fn agrees(got: &Result<Said>, expected: &Verdict) -> bool {
    match (got, expected) {
        (Ok(got), Ok(expected)) => got == expected,
        (Err(error), Err(expected)) => error.applied == Applied::No && expected.is(error),
        _ => false,
    }
}
