//! The fenced code blocks of a page in Markdown, each with its place, and what stands directly below it.

use std::fs;
use std::path::Path;

/// One block.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Block {
    /// The heading of second level that it stands under; empty above the first.
    pub section: String,
    /// Of the opening fence, from 1.
    pub line: usize,
    /// `sh`, `json`, `text`, `html` … or empty.
    pub language: String,
    /// What stands between the fences.
    pub text: String,
    /// Nothing but blank lines between the block above and this one.
    pub follows: bool,
}

impl Block {
    /// Every line is a frame, as a client says it (`→`) or hears it (`←`).
    pub fn is_frames(&self) -> bool {
        !self.text.is_empty() && self.text.lines().all(|line| line.starts_with("→ ") || line.starts_with("← "))
    }

    /// What a report calls it.
    pub fn first_line(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }
}

/// The text of a file of this checkout.
pub fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All blocks of a page, in order.
pub fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<Block> = None;
    let mut only_blank_lines = false;
    let mut section = "";
    for (line, text) in (1..).zip(page.lines()) {
        match &mut open {
            Some(block) if text == "```" => {
                blocks.push(block.clone());
                open = None;
                only_blank_lines = true;
            }
            Some(block) => {
                block.text += text;
                block.text.push('\n');
            }
            None => match text.strip_prefix("```") {
                Some(language) => {
                    let (section, language) = (section.to_owned(), language.to_owned());
                    open = Some(Block { section, line, language, text: String::new(), follows: only_blank_lines });
                }
                None => {
                    section = text.strip_prefix("## ").unwrap_or(section);
                    only_blank_lines &= text.trim().is_empty();
                }
            },
        }
    }
    assert!(open.is_none(), "the last block is not closed");
    blocks
}

#[test]
fn blocks_are_read_with_their_place_and_what_they_follow() {
    let page = "# A\n## B\n```sh\none\ntwo\n```\n\n```json\n{}\n```\nwords\n```\n→ {}\n← {}\n```\n";
    let found = blocks(page);
    let block = |line, language: &str, text: &str, follows| Block { section: "B".into(), line, language: language.into(), text: text.into(), follows };
    assert_eq!(found, [block(3, "sh", "one\ntwo\n", false), block(8, "json", "{}\n", true), block(12, "", "→ {}\n← {}\n", false)]);
    assert_eq!(found.iter().map(Block::is_frames).collect::<Vec<_>>(), [false, false, true]);
}
