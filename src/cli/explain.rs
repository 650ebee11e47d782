//! `tidelog explain`: what an error code means, from the table every face shares.

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

fn explain(code: Code) -> String {
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
    format!("{code}\n  {applied}\n  retry: {}. {retry}\n", code.retry().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_explained_in_sentences() {
        for &code in Code::ALL {
            assert_eq!(explain(code).lines().count(), 3, "{code}");
        }
    }
}
