//! The workspace's own Rust files as text, for the house rules: whole, and with comments and literals blanked, so that
//! a rule about code is not broken by a sentence about it.

use std::fs;
use std::path::{Path, PathBuf};

/// The crates of the workspace, by folder.
pub const CRATES: [&str; 6] = ["protocol", "storage", "broker", "client", "tests", "bench"];

/// One Rust file.
#[derive(Debug)]
pub struct SourceFile {
    /// Path below the workspace, with `/`.
    pub path: String,
    /// As it stands on disk.
    pub text: String,
    /// The same with comments, strings and character literals blanked; lines keep their numbers.
    pub code: String,
}

impl SourceFile {
    /// Line numbers (from 1) on which `word` stands in code, not as part of a longer name.
    pub fn lines_with(&self, word: &str) -> Vec<usize> {
        let numbered = self.code.lines().enumerate();
        numbered.filter(|(_, line)| holds_word(line, word)).map(|(index, _)| index + 1).collect()
    }
}

/// The folder that holds all crates.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust file of every crate, sorted by path; build products are left out.
pub fn rust_files() -> Vec<SourceFile> {
    let root = workspace();
    let mut paths = Vec::new();
    for folder in CRATES {
        collect(&root.join(folder), folder, &mut paths);
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(root.join(&path))
                .unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
            let code = blank_literals(&text);
            SourceFile { path, text, code }
        })
        .collect()
}

fn collect(folder: &Path, name: &str, paths: &mut Vec<String>) {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("cannot list {}: {error}", folder.display()));
    for entry in entries.flatten() {
        let file_name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{name}/{file_name}");
        if entry.path().is_dir() {
            if file_name != "target" && !file_name.starts_with('.') {
                collect(&entry.path(), &path, paths);
            }
        } else if file_name.ends_with(".rs") {
            paths.push(path);
        }
    }
}

/// True when `word` stands in `line` and no letter, digit or underscore touches an end of it that is one itself.
fn holds_word(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let open_front = !(word.starts_with(is_name) && before.is_some_and(is_name));
        let open_back = !(word.ends_with(is_name) && after.is_some_and(is_name));
        open_front && open_back
    })
}

/// Replaces comments, strings and character literals by spaces.
pub fn blank_literals(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none begins there.
fn literal_end(chars: &[char], at: usize) -> usize {
    let next = chars.get(at + 1).copied().unwrap_or('\0');
    match chars[at] {
        '/' if next == '/' => (at..chars.len()).find(|i| chars[*i] == '\n').unwrap_or(chars.len()),
        '/' if next == '*' => block_comment_end(chars, at),
        '"' => quoted_end(chars, at + 1, '"'),
        'r' if next == '"' || next == '#' => raw_string_end(chars, at),
        '\'' if next == '\\' => quoted_end(chars, at + 1, '\''),
        // a lifetime has no closing quote two places on
        '\'' if chars.get(at + 2) == Some(&'\'') => at + 3,
        _ => at,
    }
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn quoted_end(chars: &[char], mut at: usize, quote: char) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// `r"…"`, `r#"…"#`; a raw identifier such as `r#type` is no literal.
fn raw_string_end(chars: &[char], start: usize) -> usize {
    let part_of_name = start > 0 && (chars[start - 1].is_alphanumeric() || chars[start - 1] == '_');
    let byte_prefix = start > 0 && chars[start - 1] == 'b';
    let hashes = chars[start + 1..].iter().take_while(|c| **c == '#').count();
    if chars.get(start + 1 + hashes) != Some(&'"') || (part_of_name && !byte_prefix) {
        return start;
    }
    let mut at = start + 2 + hashes;
    while at < chars.len() {
        if chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    chars.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_stays_and_sentences_go() {
        for (text, code) in [
            ("let a = 1; // unsafe\nb", "let a = 1;          \nb"),
            ("a /* x /* y */ z */ b", "a                   b"),
            (r#"f("tokio::", 'x', '\'', b"\"")"#, r"f(         ,    ,     , b    )"),
            (r##"f(r#"a"b"#, r"c")"##, "f(        ,     )"),
            ("fn f<'a>(x: &'a str, r#type: u8)", "fn f<'a>(x: &'a str, r#type: u8)"),
        ] {
            assert_eq!(blank_literals(text), code, "{text}");
        }
    }

    #[test]
    fn a_word_is_not_found_inside_a_longer_one() {
        assert!(holds_word("unsafe { x }", "unsafe"));
        assert!(!holds_word("deny(unsafe_code)", "unsafe"));
        assert!(holds_word("use tokio::net;", "tokio::"));
        assert!(!holds_word("use not_tokio::net;", "tokio::"));
    }
}
