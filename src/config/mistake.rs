//! Mistakes in settings and how they are shown. A mistake has a place, says what was found, what is allowed and
//! what to do. Never shows a secret: the source that is printed has every secret value masked before.

use std::fmt;
use std::path::PathBuf;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;
use thiserror::Error;

use super::tree::{Node, Place, Value};

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// What was found, in one clause.
    pub message: String,
    /// What may stand here; empty when there is nothing to choose from.
    pub allowed: String,
    /// What to do about it; may be empty.
    pub help: String,
    /// Bytes of the file.
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Mistake {
    pub(super) fn new(at: &Place, message: impl Into<String>, allowed: impl Into<String>) -> Self {
        let (message, allowed) = (message.into(), allowed.into());
        let (line, column) = (at.line, at.column);
        Self { line, column, message, allowed, help: String::new(), start: at.start, end: at.end }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }
}

/// A mistake as `--output json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MistakeRow {
    /// The settings file.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1.
    pub column: usize,
    /// What was found.
    pub message: String,
    /// What is allowed.
    pub allowed: String,
    /// What to do.
    pub help: String,
}

/// Why there are no settings. `Display` shows every mistake with its line underlined.
#[derive(Debug, Error)]
pub enum ConfigErrors {
    /// There is no file to read.
    #[error(
        "no settings file: looked for {looked}; create one, name one with --config or $BCBRIDGE_CONFIG, or set BIGCOMMERCE_STORE_HASH and BIGCOMMERCE_ACCESS_TOKEN to start without one"
    )]
    Absent {
        /// The places, separated by commas.
        looked: String,
    },
    /// The file is there and cannot be read.
    #[error("cannot read settings from {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is far too large for settings.
    #[error("settings file {} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// The file was read and is wrong, here and there.
    #[error("{0}")]
    Mistakes(Mistakes),
}

impl ConfigErrors {
    /// One row per mistake; a file that could not be read is one mistake at its beginning.
    #[must_use]
    pub fn rows(&self) -> Vec<MistakeRow> {
        let whole = |file: String, help: &str| {
            let (allowed, help) = (String::new(), help.to_owned());
            vec![MistakeRow { file, line: 1, column: 1, message: self.to_string(), allowed, help }]
        };
        match self {
            Self::Absent { .. } => whole(String::new(), "name a file with --config"),
            Self::Unreadable { path, .. } | Self::TooLarge { path, .. } => {
                whole(path.display().to_string(), "name another file with --config")
            }
            Self::Mistakes(mistakes) => mistakes.rows(),
        }
    }
}

/// All mistakes of one file, in the order of their places.
#[derive(Debug)]
pub struct Mistakes {
    /// As it was given.
    pub file: String,
    /// At least one.
    pub list: Vec<Mistake>,
    /// The file's text without its secrets.
    masked: String,
}

impl Mistakes {
    pub(super) fn new(file: &str, source: &str, secrets: &[Place], mut list: Vec<Mistake>) -> Self {
        list.sort_by_key(|mistake| (mistake.line, mistake.column));
        list.dedup();
        Self { file: file.to_owned(), list, masked: mask(source, secrets) }
    }

    fn rows(&self) -> Vec<MistakeRow> {
        let row = |m: &Mistake| MistakeRow {
            file: self.file.clone(),
            line: m.line,
            column: m.column,
            message: m.message.clone(),
            allowed: m.allowed.clone(),
            help: m.help.clone(),
        };
        self.list.iter().map(row).collect()
    }

    fn render(&self, mistake: &Mistake) -> String {
        // One line of source, so that no neighbour is shown and columns stay what they are.
        let line_start = self.masked[..mistake.start].rfind('\n').map_or(0, |at| at + 1);
        let line_end =
            self.masked[mistake.start..].find('\n').map_or(self.masked.len(), |at| mistake.start + at);
        let line = &self.masked[line_start..line_end];
        let end = mistake.end.clamp(mistake.start, line_end);
        let span = mistake.start - line_start..end - line_start;
        let label = (!mistake.allowed.is_empty()).then(|| format!("allowed: {}", mistake.allowed));
        let snippet = Snippet::source(line)
            .line_start(mistake.line)
            .path(&self.file)
            .annotation(AnnotationKind::Primary.span(span).label(label));
        let mut group = Level::ERROR.primary_title(&mistake.message).element(snippet);
        if !mistake.help.is_empty() {
            group = group.element(Level::HELP.message(&mistake.help));
        }
        Renderer::plain().render(&[group])
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in &self.list {
            writeln!(f, "{}\n", self.render(mistake))?;
        }
        let many = if self.list.len() == 1 { "mistake" } else { "mistakes" };
        write!(f, "{}: {} {many}", self.file, self.list.len())
    }
}

/// Whether values under a key of this name are hidden. Wider than the keys that exist, since a misspelled key
/// holds the same secret.
pub(super) fn is_secret_key(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let hit = |word: &str| name.contains(word);
    // The path of a file is no secret, and neither is whether signatures are checked.
    !name.ends_with("_file")
        && !name.ends_with(".location")
        && [
            "token",
            "secret",
            "passw",
            "passphrase",
            "credential",
            "jaas",
            "private",
            "pem",
            "apikey",
            "api_key",
        ]
        .iter()
        .any(|word| hit(word))
        || ["auth_key", "authorization", "webhook_header", "client_secret"].iter().any(|word| hit(word))
            && !name.ends_with("_file")
}

/// The places of all values below secret keys.
pub(super) fn secret_places(node: &Node) -> Vec<Place> {
    let mut places = Vec::new();
    collect(node, false, &mut places);
    places
}

fn collect(node: &Node, secret: bool, places: &mut Vec<Place>) {
    match &node.value {
        Value::Null => {}
        Value::Scalar(scalar) if secret => places.extend([node.at.clone(), scalar.written.clone()]),
        Value::Scalar(_) => {}
        Value::List(items) => items.iter().for_each(|item| collect(item, secret, places)),
        Value::Map(entries) => {
            for (key, value) in entries {
                collect(value, secret || is_secret_key(&key.name), places);
            }
        }
    }
}

/// The source with every secret replaced, character by character, so that columns stay. A secret value hides
/// everything from its first character to the end of its line, and the lines after it that are indented
/// deeper: a text over several lines is one secret. Variables stay readable, they are names.
fn mask(source: &str, secrets: &[Place]) -> String {
    let mut hidden: Vec<(usize, usize)> = Vec::new();
    for place in secrets {
        let text = &source[place.start..place.end];
        let name_only = text.trim_matches(['"', '\'']);
        if name_only.starts_with("${") && name_only.ends_with('}') && !name_only.contains(":-") {
            continue;
        }
        hidden.push((place.start, place.end));
        if text.starts_with(['|', '>'])
            || text.starts_with(['"', '\'']) && !closes(text)
            || place.start == place.end
        {
            hidden.push((place.start, block_end(source, place.start)));
        }
    }
    let mut covered = vec![false; source.len()];
    for (start, end) in hidden {
        covered[start..end].fill(true);
    }
    let mut masked = String::with_capacity(source.len());
    for (at, c) in source.char_indices() {
        if covered[at] && c != '\n' {
            masked.extend(std::iter::repeat_n('*', c.len_utf8()));
        } else {
            masked.push(c);
        }
    }
    masked
}

fn closes(quoted: &str) -> bool {
    quoted.len() > 1 && quoted.ends_with(['"', '\''])
}

/// The end of the lines after `start` that are indented deeper than its own.
fn block_end(source: &str, start: usize) -> usize {
    let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
    let indent = |line: &str| line.len() - line.trim_start().len();
    let own = indent(&source[line_start..]);
    let mut end = line_start;
    for (count, line) in source[line_start..].split_inclusive('\n').enumerate() {
        if count > 0 && !line.trim().is_empty() && indent(line) <= own {
            break;
        }
        end += line.len();
    }
    end
}

/// The places that may hold secrets in a file that is no YAML, found by the look of its lines.
pub(super) fn secret_lines(source: &str) -> Vec<Place> {
    let mut places = Vec::new();
    let mut start = 0;
    let mut inside: Option<usize> = None;
    for (number, line) in source.split_inclusive('\n').enumerate() {
        let indent = line.len() - line.trim_start().len();
        if inside.is_some_and(|depth| indent <= depth && !line.trim_start().starts_with('-')) {
            inside = None;
        }
        let opens = line.find(':').filter(|at| is_secret_key(&line[..*at]));
        let from = if inside.is_some() { Some(indent) } else { opens.map(|at| at + 1) };
        if inside.is_none() && opens.is_some() {
            inside = Some(indent);
        }
        if let Some(from) = from {
            let end = start + line.trim_end().len();
            places.push(Place { line: number + 1, column: 1, start: (start + from).min(end), end });
        }
        start += line.len();
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_keys_are_known_by_their_words() {
        for name in [
            "access_token",
            "acess_token",
            "client_secrets",
            "sasl.password",
            "ssl.key.pem",
            "webhook_headers",
        ] {
            assert!(is_secret_key(name), "{name}");
        }
        for name in ["access_token_file", "client_secrets_file", "signature", "key", "webhook_headers_file"] {
            assert!(!is_secret_key(name), "{name}");
        }
    }

    #[test]
    fn broken_files_have_their_secret_lines_masked() {
        let source = "a: b\nclient_secrets:\n  - hush\n  - 'quiet'\nname: x\ntoken: t0p\n";
        let masked = mask(source, &secret_lines(source));
        assert!(!masked.contains("hush") && !masked.contains("quiet") && !masked.contains("t0p"), "{masked}");
        assert!(masked.contains("name: x"));
        assert_eq!(masked.len(), source.len());
    }
}
