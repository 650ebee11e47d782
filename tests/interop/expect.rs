//! Does what was printed look like what a page shows?
//!
//! A page shows one run. Another run has other times, other widths of indentation, and is longer than a page is wide. So white space
//! does not count, `…` stands for anything, and a time of day stands for any time of day.

/// The pieces of what a page shows, between its wildcards.
fn pieces(shown: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let chars: Vec<char> = shown.chars().filter(|c| !c.is_whitespace()).collect();
    let mut at = 0;
    while at < chars.len() {
        if chars[at] == '…' {
            pieces.push(String::new());
            at += 1;
        } else if let Some(length) = time(&chars[at..]) {
            pieces.push(String::new());
            at += length;
        } else {
            pieces.last_mut().expect("there is always one").push(chars[at]);
            at += 1;
        }
    }
    pieces
}

/// How long the time at the beginning is, if there is one: `2026-01-26T10:00:00.123456Z`.
fn time(chars: &[char]) -> Option<usize> {
    const FORM: &str = "0000-00-00T00:00:00";
    if chars.len() < FORM.len() || !FORM.chars().zip(chars).all(|(form, c)| if form == '0' { c.is_ascii_digit() } else { form == *c }) {
        return None;
    }
    let rest = chars[FORM.len()..].iter().position(|c| !c.is_ascii_digit() && *c != '.')?;
    (chars[FORM.len() + rest] == 'Z').then_some(FORM.len() + rest + 1)
}

/// All of it looks as shown.
pub fn looks_like(shown: &str, printed: &str) -> bool {
    let printed: String = printed.chars().filter(|c| !c.is_whitespace()).collect();
    let pieces = pieces(shown);
    let [first, between @ .., last] = pieces.as_slice() else { return printed == pieces[0] };
    let Some(mut rest) = printed.strip_prefix(first.as_str()) else { return false };
    for piece in between {
        let Some(at) = rest.find(piece.as_str()) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last.as_str())
}

#[test]
fn an_answer_looks_as_shown_whatever_its_times_and_indentation() {
    let shown = r#"{"offset":0,"time":"2026-01-26T10:00:00.123456Z", …,"size":12}"#;
    assert!(looks_like(shown, "{\n  \"offset\": 0, \"time\": \"2031-12-01T00:00:00.5Z\", \"type\": \"a\", \"size\": 12\n}\n"));
    assert!(!looks_like(shown, r#"{"offset":1,"time":"2031-12-01T00:00:00.5Z","type":"a","size":12}"#));
    assert!(!looks_like(shown, r#"{"offset":0,"time":"2031-12-01T00:00:00.5Z","type":"a","size":13}"#));
    assert!(looks_like("a … b … c", "a 1 b 2 c") && !looks_like("a … b … c", "a 1 c"));
    assert!(looks_like("same", " same\n") && !looks_like("same", "same again"));
}
