//! What goes to stdout: whole lines, flushed when it matters, silent when the reader has gone.

use std::io::{BufWriter, IsTerminal, StdoutLock, Write};

use serde_json::{Map, Value};

use super::failure::{Failure, Outcome};
use crate::client::Event;
use crate::types::name::quote;

/// Stdout, buffered. An error of kind "broken pipe" becomes [`Failure::BrokenPipe`], which ends the command quietly.
pub struct Out {
    to: BufWriter<StdoutLock<'static>>,
}

impl Out {
    /// Locks stdout.
    pub fn new() -> Self {
        Self { to: BufWriter::with_capacity(64 * 1024, std::io::stdout().lock()) }
    }

    /// Bytes as they are, flushed.
    pub fn raw(&mut self, bytes: &[u8]) -> Outcome {
        self.to.write_all(bytes)?;
        self.flush()
    }

    /// One line, flushed.
    pub fn line(&mut self, text: &str) -> Outcome {
        self.to.write_all(text.as_bytes())?;
        self.to.write_all(b"\n")?;
        self.flush()
    }

    /// One JSON value as a line, flushed.
    pub fn json(&mut self, value: &impl serde::Serialize) -> Outcome {
        let text = serde_json::to_string(value).map_err(|e| Failure::failed(format!("The answer has no JSON form: {e}.")))?;
        self.line(&text)
    }

    /// One event as a line, not flushed: its data, or its JSON form with the stream's name in front.
    pub fn event(&mut self, stream: &str, event: &Event, json: bool) -> Outcome {
        if json {
            let form = event_line(stream, event);
            self.to.write_all(&form)?;
        } else {
            self.to.write_all(&event.data)?;
        }
        self.to.write_all(b"\n")?;
        Ok(())
    }

    /// Everything written so far is out of this process.
    pub fn flush(&mut self) -> Outcome {
        Ok(self.to.flush()?)
    }
}

/// The JSON form of an event with `"stream"` in front; on one line.
pub fn event_line(stream: &str, event: &Event) -> Vec<u8> {
    let mut form = Vec::with_capacity(event.data.len() + 256);
    crate::wire::json::event_json(&mut form, &event.batch().head, event.offset, &event.as_ref());
    let mut line = format!("{{\"stream\":\"{stream}\",").into_bytes();
    line.extend_from_slice(form.strip_prefix(b"{").unwrap_or(&form));
    // JSON data is kept as it was sent; its raw line ends would break the line.
    crate::wire::json::single_line(&line).into_owned()
}

/// A table for people: columns as wide as their widest cell, at least two blanks between.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).chain([head[column].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let text: String = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        text.trim_end().to_owned() + "\n"
    };
    let mut out = line(&mut head.iter().copied());
    for row in rows {
        out += &line(&mut row.iter().map(String::as_str));
    }
    out
}

/// An object for people: one `name  value` per line, nested objects with dots.
pub fn fields(object: &Map<String, Value>) -> String {
    fn walk(prefix: &str, object: &Map<String, Value>, rows: &mut Vec<(String, String)>) {
        for (name, value) in object {
            let name = format!("{prefix}{name}");
            match value {
                Value::Object(inner) if !inner.is_empty() => walk(&format!("{name}."), inner, rows),
                Value::String(text) => rows.push((name, text.escape_debug().to_string())),
                other => rows.push((name, other.to_string())),
            }
        }
    }
    let mut rows = Vec::new();
    walk("", object, &mut rows);
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
}

/// Asks on a terminal before something is destroyed; scripts and `--yes` are not asked.
pub fn confirm(what: &str, yes: bool) -> Outcome {
    if yes || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(());
    }
    eprint!("{what} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::failed(format!("Nothing was done: the answer was {}.", quote(answer.trim()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_carry_no_trailing_blanks() {
        let text = table(&["NAME", "EVENTS"], &[vec!["orders".into(), "3".into()], vec!["a".into(), "12345".into()]]);
        assert_eq!(text, "NAME    EVENTS\norders  3\na       12345\n");
    }

    #[test]
    fn nested_fields_are_dotted() {
        let value: Value = serde_json::from_str(r#"{"name":"a\u001b","state":{"next_offset":3},"metadata":{}}"#).unwrap();
        let text = fields(value.as_object().unwrap());
        assert!(text.contains("state.next_offset  3\n"), "{text}");
        assert!(text.contains("metadata           {}\n"), "{text}");
        assert!(!text.contains('\u{1b}'), "terminal escapes do not pass");
    }
}
