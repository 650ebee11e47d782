//! `tidelog explain`: what an error code means, from the table in `docs/errors.md`.

use clap::Args;

use super::failure::{Failure, Outcome};
use super::output::Out;
use crate::types::name::quote;
use crate::types::{Applied, Code, Retry};

/// Print what an error code means.
#[derive(Debug, Args)]
pub struct Explain {
    /// The code, such as session_fenced; without: all codes
    code: Option<String>,
}

impl Explain {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let mut out = Out::new();
        let Some(text) = self.code else {
            let all: String = Code::ALL.iter().map(|code| format!("{code}\n")).collect();
            return out.raw(all.as_bytes());
        };
        let word = text.to_ascii_lowercase();
        match Code::parse(&word) {
            Some(code) => out.raw(explain(code).as_bytes()),
            None => {
                let near: Vec<&str> = Code::ALL.iter().map(|c| c.as_str()).filter(|c| c.split('_').any(|part| word.split('_').any(|w| w == part))).collect();
                let hint = if near.is_empty() { "`tidelog explain` lists them.".to_owned() } else { format!("Did you mean {}?", near.join(", ")) };
                Err(Failure::Usage(format!("There is no code {}. {hint}", quote(&text))))
            }
        }
    }
}

/// The page that explains each code, with a table whose first column is the code.
const PAGE: &str = include_str!("../../docs/errors.md");

/// Columns "meaning" and "what to do" of a code's row.
fn row(code: Code) -> Option<(&'static str, &'static str)> {
    PAGE.lines().find_map(|line| {
        let mut cells = line.strip_prefix('|')?.trim_end().strip_suffix('|')?.split('|').map(str::trim);
        (cells.next()?.trim_matches('`') == code.as_str()).then_some(())?;
        Some((cells.next()?, cells.next_back()?))
    })
}

fn explain(code: Code) -> String {
    let (meaning, what_to_do) = row(code).unwrap_or_default();
    let applied = match code.applied() {
        Applied::No => "The request had no effect and will have none.",
        Applied::Unknown => "The request may have had an effect, now or later.",
    };
    let retry = match code.retry() {
        Retry::Same => "Send the very same request again: with a producer, an idempotency key or inside a commit it is stored once.",
        Retry::Resend => "Send again from the position in the details.",
        Retry::Resume => "Send `resume` first, then go on from the position you resumed at.",
        Retry::Reopen => "Open the producer or the session again, then go on.",
        Retry::Backoff => "Wait a moment, longer each time, then send again.",
        Retry::Decide => "Only a person, or the program's own logic, can say what is right now.",
        Retry::Never => "Sending it again will not help: something has to change first.",
    };
    format!("{code}: {meaning}\n  {applied}\n  retry: {}. {retry}\n  what to do: {what_to_do}\n", code.retry().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_explained_in_sentences() {
        for &code in Code::ALL {
            let (meaning, what_to_do) = row(code).unwrap_or_default();
            assert!(!meaning.is_empty() && !what_to_do.is_empty(), "docs/errors.md has no row for {code}");
            assert_eq!(explain(code).lines().count(), 4, "{code}");
        }
    }
}
