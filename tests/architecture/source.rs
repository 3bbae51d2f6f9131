//! Reading sources as text: what is code, what a line names, where files are.
//!
//! It knows just enough of Rust's surface (comments, literals, test modules, `use` lists) to look at code and nothing
//! else. On broken sources it may look at too much or too little; the compiler refuses those anyway.

use std::fs;
use std::path::{Path, PathBuf};

/// What betrays the machine it was written on, or pins a registry. Assembled so that this file does not contain it.
pub(super) fn betrayals() -> Vec<String> {
    [
        ("/wo", "rk/"),
        ("/fa", "rm/"),
        ("/ro", "ot/"),
        ("/ho", "me/"),
        (".lib", "rary/"),
        ("static.", "crates"),
        ("index.", "crates"),
        ("repo1.", "maven"),
        ("pypi", ".org"),
        ("registry.", "npmjs"),
    ]
    .map(|(a, b)| format!("{a}{b}"))
    .into()
}

/// Whether a line names `what` as a path of its own and not as a part of a longer word.
pub(super) fn names(line: &str, what: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(what).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + what.len()..]);
        // `engine.rand` and `crate::rand` are ours; `hyper_util` is hyper's.
        let ours = before.ends_with("crate::") || before.ends_with("self::") || before.ends_with("super::");
        let library = what.chars().all(|c| c.is_lowercase());
        let starts = !(before.ends_with(is_word) || ours || (library && before.ends_with('.')));
        let ends = if library {
            after.starts_with("::")
                || after.starts_with("_util::")
                || after.starts_with(';')
                || after.starts_with(" as ")
        } else {
            !after.starts_with(is_word) || !what.ends_with(is_word)
        };
        starts && ends
    })
}

/// The modules of the crate that a line names: `crate::a`, `bcbridge::a`, and each of `crate::{a, b::c}`.
pub(super) fn known(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for start in ["crate::", "bcbridge::"] {
        for (at, _) in line.match_indices(start) {
            let rest = &line[at + start.len()..];
            let mut depth = 0_usize;
            let mut word = String::new();
            for c in rest.chars().chain([';']) {
                match c {
                    '{' => depth += 1,
                    '}' => depth = depth.saturating_sub(1),
                    c if c.is_alphanumeric() || c == '_' => {
                        word.push(c);
                        continue;
                    }
                    _ => {}
                }
                // A word counts at the first level only: in `crate::{a, b::{c}}` these are a and b.
                if !word.is_empty() && depth <= 1 {
                    found.push(std::mem::take(&mut word));
                }
                word.clear();
                if depth == 0 {
                    break;
                }
            }
        }
    }
    found
}

/// The sentences of the opening comment.
pub(super) fn sentences(text: &str) -> usize {
    let opening: String = text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .map(|line| format!("{} ", line.trim_start_matches("//!").trim()))
        .collect();
    opening.matches(". ").count() + opening.matches("? ").count()
}

/// The code with comments, the content of literals and test modules blanked out; lines keep their numbers, and a `use`
/// over several lines is joined on its first one.
pub(super) fn code_of(text: &str) -> String {
    joined_uses(&without_tests(&without_words(text)))
}

fn without_words(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let (mut out, mut index) = (String::with_capacity(text.len()), 0);
    while index < chars.len() {
        let end = match (at(index), at(index + 1)) {
            ('/', '/') => (index..chars.len()).find(|i| at(*i) == '\n').unwrap_or(chars.len()),
            ('/', '*') => end_of_block(&chars, index),
            ('r', '"' | '#') if !out.ends_with(|c: char| c.is_alphanumeric() || c == '_') => {
                end_of_raw(&chars, index)
            }
            ('"', _) => end_of_quoted(&chars, index),
            ('\'', '\\') => end_of_char(&chars, index),
            ('\'', _) if at(index + 2) == '\'' => index + 3,
            _ => index,
        };
        if end == index {
            out.push(at(index));
            index += 1;
            continue;
        }
        out.extend(chars[index..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        index = end;
    }
    out
}

fn end_of_block(chars: &[char], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut index = start;
    while index < chars.len() {
        match (chars[index], chars.get(index + 1)) {
            ('/', Some('*')) => depth += 1,
            ('*', Some('/')) => depth -= 1,
            _ => {
                index += 1;
                continue;
            }
        }
        index += 2;
        if depth == 0 {
            break;
        }
    }
    index
}

fn end_of_raw(chars: &[char], start: usize) -> usize {
    let hashes = chars[start + 1..].iter().take_while(|c| **c == '#').count();
    if chars.get(start + 1 + hashes) != Some(&'"') {
        return start;
    }
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = start + 2 + hashes;
    (body..chars.len()).find(|i| chars[*i..].starts_with(&close)).map_or(chars.len(), |i| i + close.len())
}

fn end_of_quoted(chars: &[char], start: usize) -> usize {
    let mut index = start + 1;
    while index < chars.len() && chars[index] != '"' {
        index += if chars[index] == '\\' { 2 } else { 1 };
    }
    (index + 1).min(chars.len())
}

fn end_of_char(chars: &[char], start: usize) -> usize {
    (start + 3..chars.len().min(start + 14)).find(|i| chars[*i] == '\'').map_or(start, |i| i + 1)
}

/// Blanks what stands behind `#[cfg(test)]`, up to the end of the item.
fn without_tests(code: &str) -> String {
    let mut out = String::new();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once("#[cfg(test)]") {
        out.push_str(before);
        let mut depth = 0_usize;
        let end = after.char_indices().find_map(|(at, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            (depth == 0 && matches!(c, '}' | ';')).then_some(at + 1)
        });
        let (test, next) = after.split_at(end.unwrap_or(after.len()));
        out.extend(test.chars().filter(|c| *c == '\n'));
        rest = next;
    }
    out + rest
}

fn joined_uses(code: &str) -> String {
    let mut out = String::new();
    let mut held = 0;
    let mut in_use = false;
    for line in code.lines() {
        let start = line.trim_start();
        in_use |= ["use ", "pub use ", "pub(crate) use ", "pub(super) use "]
            .iter()
            .any(|word| start.starts_with(word));
        out.push_str(line);
        if in_use && !line.contains(';') {
            held += 1;
            continue;
        }
        in_use = false;
        out.extend(std::iter::repeat_n('\n', held + 1));
        held = 0;
    }
    out
}

pub(super) fn files(top: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(top) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .flat_map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path()),
            Ok(kind) if kind.is_file() => vec![entry.path()],
            _ => Vec::new(),
        })
        .collect();
    found.sort();
    found
}
