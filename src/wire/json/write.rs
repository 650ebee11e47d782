//! Writing JSON by hand: strings, numbers, and members of objects in a fixed order.

/// For each byte: 0 = as it is, `u` = as `\u00XX`, else the letter after the backslash.
static ESCAPES: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut i = 0;
    while i < 0x20 {
        table[i] = b'u';
        i += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0a] = b'n';
    table[0x0c] = b'f';
    table[0x0d] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// A string with its quotes. Runs without anything to escape are copied whole.
pub fn string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut copied = 0;
    for (i, &byte) in bytes.iter().enumerate() {
        let escape = ESCAPES[byte as usize];
        if escape == 0 {
            continue;
        }
        out.extend_from_slice(&bytes[copied..i]);
        copied = i + 1;
        out.extend_from_slice(&[b'\\', escape]);
        if escape == b'u' {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(&[b'0', b'0', HEX[byte as usize >> 4], HEX[byte as usize & 15]]);
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

/// An integer.
pub fn number(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// An integer, or `null`.
pub fn number_or_null(out: &mut Vec<u8>, n: Option<u64>) {
    match n {
        Some(n) => number(out, n),
        None => out.extend_from_slice(b"null"),
    }
}

/// Seconds with at most three decimals.
pub fn seconds(out: &mut Vec<u8>, seconds: f64) {
    let millis = (seconds.max(0.0) * 1000.0).round() as u64;
    number(out, millis / 1000);
    let rest = millis % 1000;
    if rest != 0 {
        let digits = [b'0' + (rest / 100) as u8, b'0' + (rest / 10 % 10) as u8, b'0' + (rest % 10) as u8];
        let len = digits.iter().rposition(|d| *d != b'0').map_or(0, |last| last + 1);
        out.push(b'.');
        out.extend_from_slice(&digits[..len]);
    }
}

/// An object whose members are written in the order of the calls. Names need no escaping.
pub struct Members<'a> {
    /// The text so far.
    pub out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Members<'a> {
    /// Opens the object.
    pub fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    /// A frame: begins with `t`.
    pub fn frame(out: &'a mut Vec<u8>, t: &str) -> Self {
        let mut members = Self::begin(out);
        members.text("t", t);
        members
    }

    /// The name of a member whose value the caller writes.
    pub fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// A string.
    pub fn text(&mut self, name: &str, value: &str) {
        string(self.name(name), value);
    }

    /// An integer.
    pub fn number(&mut self, name: &str, value: u64) {
        number(self.name(name), value);
    }

    /// An integer or `null`: the member is always there.
    pub fn number_or_null(&mut self, name: &str, value: Option<u64>) {
        number_or_null(self.name(name), value);
    }

    /// An integer, or nothing at all.
    pub fn number_if(&mut self, name: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.number(name, value);
        }
    }

    /// A string, or nothing at all.
    pub fn text_if(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// A boolean.
    pub fn boolean(&mut self, name: &str, value: bool) {
        self.name(name).extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// Items between brackets.
    pub fn list<T>(&mut self, name: &str, items: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Vec<u8>, T)) {
        let out = self.name(name);
        out.push(b'[');
        for (i, item) in items.into_iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            write(out, item);
        }
        out.push(b']');
    }

    /// Closes the object.
    pub fn end(self) {
        self.out.push(b'}');
    }
}

/// Text that was put together from UTF-8 parts.
pub fn finish(out: Vec<u8>) -> String {
    String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn strings_are_escaped_as_serde_escapes_them(text in "\\PC*|[\\x00-\\x7f]*") {
            prop_assert_eq!(written(|o| string(o, &text)), serde_json::to_string(&text).unwrap());
        }

        #[test]
        fn integers_are_written_in_full(n: u64) {
            prop_assert_eq!(written(|o| number(o, n)), n.to_string());
        }

        #[test]
        fn seconds_have_at_most_three_decimals(millis in 0u64..1 << 40) {
            let text = written(|o| seconds(o, millis as f64 / 1000.0));
            prop_assert_eq!(text.parse::<f64>().unwrap(), millis as f64 / 1000.0);
            prop_assert!(text.split_once('.').is_none_or(|(_, decimals)| decimals.len() <= 3 && !decimals.ends_with('0')), "{}", text);
        }
    }

    #[test]
    fn seconds_that_are_no_numbers_are_zero_or_huge_but_json() {
        for odd in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            assert!(written(|o| seconds(o, odd)).bytes().next().unwrap().is_ascii_digit());
        }
    }
}
