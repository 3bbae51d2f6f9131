//! Reading one map of the tree: which keys it may have, and each key as the type it should be. A reader never
//! stops at a mistake: it notes it and goes on, with nothing in the place of the bad value.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::mistake::{Mistake, is_secret_key};
use super::names::EntityNames;
use super::tree::{Key, Node, Place, Scalar, ScalarKind, Value};
use super::values;
use crate::transform::{Mapping, MappingError, RECORD_VARIABLES};

/// A secret is a line, not a document.
const MAX_SECRET_FILE_BYTES: u64 = 64 * 1024;

/// What reading has found so far.
pub(super) struct Reading<'a> {
    /// The catalogue.
    pub(super) names: &'a dyn EntityNames,
    /// The directory that relative secret files start from.
    pub(super) dir: PathBuf,
    /// What is wrong.
    pub(super) mistakes: Vec<Mistake>,
    /// What is allowed but deserves a look.
    pub(super) warnings: Vec<String>,
}

impl Reading<'_> {
    pub(super) fn wrong(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
    }
}

/// One map of the file.
pub(super) struct Section<'n> {
    /// As in `stores[0]`; empty for the whole file.
    pub(super) path: String,
    /// Where the map begins.
    pub(super) at: Place,
    entries: &'n [(Key, Node)],
}

impl<'n> Section<'n> {
    /// Opens `node` as a map whose keys are `known`; notes repeated and unknown keys. Nothing counts as empty.
    pub(super) fn open(cx: &mut Reading<'_>, node: &'n Node, path: &str, known: &[&str]) -> Self {
        let section = Self::open_any(cx, node, path);
        for (key, _) in section.entries {
            if !known.contains(&key.name.as_str()) {
                let message = format!("unknown key `{}` in {}", key.name, section.title());
                let help = closest(&key.name, known.iter().copied())
                    .map_or_else(|| "remove it".to_owned(), |name| format!("did you mean `{name}`?"));
                cx.wrong(Mistake::new(&key.at, message, known.join(", ")).help(help));
            }
        }
        section
    }

    /// Opens `node` as a map with keys of any name.
    pub(super) fn open_any(cx: &mut Reading<'_>, node: &'n Node, path: &str) -> Self {
        let entries: &[(Key, Node)] = match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            other => {
                let message = format!("`{path}` is {}", kind(other));
                let mistake = Mistake::new(&node.at, message, "a map of keys and values");
                cx.wrong(mistake.help("write its keys on the following lines, indented"));
                &[]
            }
        };
        let mut seen = BTreeSet::new();
        for (key, _) in entries {
            if !seen.insert(&key.name) {
                let message = format!("key `{}` given twice", key.name);
                cx.wrong(Mistake::new(&key.at, message, "each key once").help("remove one of the two"));
            }
        }
        Self { path: path.to_owned(), at: node.at.clone(), entries }
    }

    fn title(&self) -> String {
        if self.path.is_empty() { "the settings".to_owned() } else { format!("`{}`", self.path) }
    }

    /// The dotted path of one of its keys.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Every key and value, of those repeated the first.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'n Key, &'n Node)> + use<'n> {
        let entries = self.entries;
        entries.iter().enumerate().filter_map(move |(at, (key, node))| {
            let first = !entries[..at].iter().any(|(earlier, _)| earlier.name == key.name);
            first.then_some((key, node))
        })
    }

    /// A key's value; `null` counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        let (_, node) = self.entries.iter().find(|(found, _)| found.name == key)?;
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    /// Whether the key is written at all, even without a value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(found, _)| found.name == key)
    }

    /// Notes that `key` is needed.
    pub(super) fn missing(&self, cx: &mut Reading<'_>, key: &str, allowed: &str) {
        // A key whose variable could not be put in has its own mistake already.
        if self.has(key) && cx.mistakes.iter().any(|m| m.message.starts_with("variable ")) {
            return;
        }
        let message = format!("`{key}` is missing in {}", self.title());
        cx.wrong(Mistake::new(&self.at, message, allowed).help(format!("add `{key}:`")));
    }

    /// A text; a number or boolean is taken as it is spelled.
    pub(super) fn text(&self, cx: &mut Reading<'_>, key: &str) -> Option<String> {
        self.parsed(cx, key, "a text", |text| Some(text.to_owned()))
    }

    /// A text that `parse` understands.
    pub(super) fn parsed<T>(
        &self,
        cx: &mut Reading<'_>,
        key: &str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let node = self.get(key)?;
        let scalar = scalar(cx, node, &self.path_of(key), allowed)?;
        let parsed = parse(&scalar.text);
        if parsed.is_none() {
            let found = found(scalar, is_secret_key(key));
            cx.wrong(Mistake::new(&node.at, format!("`{}` is {found}", self.path_of(key)), allowed));
        }
        parsed
    }

    /// A time such as `250ms`.
    pub(super) fn duration(
        &self,
        cx: &mut Reading<'_>,
        key: &str,
        allowed: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let say = format!(
            "a number with ms, s, m, h or d, from {} to {}",
            values::show(*allowed.start()),
            values::show(*allowed.end())
        );
        self.parsed(cx, key, &say, |text| values::duration(text).filter(|value| allowed.contains(value)))
    }

    /// A whole number.
    pub(super) fn whole(&self, cx: &mut Reading<'_>, key: &str, allowed: RangeInclusive<u64>) -> Option<u64> {
        let say = format!("a whole number from {} to {}", allowed.start(), allowed.end());
        self.parsed(cx, key, &say, |text| text.trim().parse().ok().filter(|value| allowed.contains(value)))
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, cx: &mut Reading<'_>, key: &str) -> Option<bool> {
        self.parsed(cx, key, "true or false", |text| match text.trim() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        })
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, cx: &mut Reading<'_>, key: &str, words: &[(&str, T)]) -> Option<T> {
        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        // YAML 1.1 habit: an unquoted `off` may be read as a boolean; the spelling is what counts here.
        self.parsed(cx, key, &all.join(", "), |text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, v)| *v)
        })
    }

    /// A list of anything.
    pub(super) fn list(&self, cx: &mut Reading<'_>, key: &str) -> Option<&'n [Node]> {
        let node = self.get(key)?;
        if let Value::List(items) = &node.value {
            return Some(items);
        }
        let message = format!("`{}` is {}", self.path_of(key), kind(&node.value));
        cx.wrong(
            Mistake::new(&node.at, message, "a list")
                .help("write it as `[a, b]` or as lines that begin with `- `"),
        );
        None
    }

    /// A list of texts, each with its place.
    pub(super) fn texts(&self, cx: &mut Reading<'_>, key: &str) -> Option<Vec<(String, &'n Node)>> {
        let items = self.list(cx, key)?;
        let path = self.path_of(key);
        let text = |(at, node): (usize, &'n Node)| {
            let scalar = scalar(cx, node, &format!("{path}[{at}]"), "a text")?;
            Some((scalar.text.clone(), node))
        };
        Some(items.iter().enumerate().filter_map(text).collect())
    }

    /// A map of texts.
    pub(super) fn pairs(&self, cx: &mut Reading<'_>, key: &str) -> Vec<(&'n Key, String, &'n Node)> {
        let Some(node) = self.get(key) else { return Vec::new() };
        let section = Section::open_any(cx, node, &self.path_of(key));
        let mut pairs = Vec::new();
        for (name, node) in section.entries() {
            if let Some(scalar) = scalar(cx, node, &section.path_of(&name.name), "a text") {
                pairs.push((name, scalar.text.clone(), node));
            }
        }
        pairs
    }

    /// A jq expression, compiled.
    pub(super) fn mapping(&self, cx: &mut Reading<'_>, key: &str) -> Option<Mapping> {
        self.compiled(cx, key, Mapping::compile)
    }

    /// A jq expression that sees a whole record.
    pub(super) fn record_mapping(&self, cx: &mut Reading<'_>, key: &str) -> Option<Mapping> {
        self.compiled(cx, key, |text| Mapping::compile_with(text, &RECORD_VARIABLES))
    }

    fn compiled(
        &self,
        cx: &mut Reading<'_>,
        key: &str,
        compile: impl FnOnce(&str) -> Result<Mapping, MappingError>,
    ) -> Option<Mapping> {
        let node = self.get(key)?;
        let scalar = scalar(cx, node, &self.path_of(key), "a jq expression")?;
        match compile(&scalar.text) {
            Ok(mapping) => Some(mapping),
            Err(error) => {
                let path = self.path_of(key);
                let message = if scalar.variables.is_empty() {
                    let (line, column) = (error.line, error.column);
                    format!(
                        "`{path}` is no jq: {} (line {line}, column {column} of the expression)",
                        error.message
                    )
                } else {
                    format!("`{path}` is no jq: {}", found(scalar, false))
                };
                let mistake = Mistake::new(
                    &node.at,
                    message,
                    "a jq expression without input, output, clock or modules",
                );
                cx.wrong(mistake.help("try the expression with `jq` on a sample record"));
                None
            }
        }
    }

    /// The lines of a secret, from the key itself or from the file that `<key>_file` names. Empty is absent for
    /// the caller to judge.
    pub(super) fn secret(&self, cx: &mut Reading<'_>, key: &str) -> Option<SecretString> {
        let direct = self.text(cx, key);
        let file_key = format!("{key}_file");
        let Some(path) = self.text(cx, &file_key) else { return direct.map(SecretString::from) };
        if self.has(key) {
            let node = self.get(&file_key)?;
            let message = format!("both `{key}` and `{file_key}` are given in {}", self.title());
            cx.wrong(Mistake::new(&node.at, message, "one of the two").help(format!("remove `{key}`")));
            return None;
        }
        self.secret_file(cx, &file_key, &path).map(SecretString::from)
    }

    /// What a secret's file contains, without the newline at its end.
    pub(super) fn secret_file(&self, cx: &mut Reading<'_>, file_key: &str, path: &str) -> Option<String> {
        let node = self.get(file_key)?;
        let full = cx.dir.join(path);
        let read = || -> Result<String, String> {
            let size = std::fs::metadata(&full).map_err(|error| error.to_string())?.len();
            if size > MAX_SECRET_FILE_BYTES {
                return Err(format!("larger than {MAX_SECRET_FILE_BYTES} bytes"));
            }
            std::fs::read_to_string(&full).map_err(|error| error.to_string())
        };
        let problem = match read() {
            Ok(text) if text.trim().is_empty() => "it is empty".to_owned(),
            Ok(text) => return Some(text.trim_end_matches(['\n', '\r']).to_owned()),
            Err(problem) => problem,
        };
        let message = format!("`{}` names {}: {problem}", self.path_of(file_key), full.display());
        cx.wrong(Mistake::new(&node.at, message, "a readable file that holds the secret and nothing else"));
        None
    }
}

/// The node as a scalar, or a note that it is none.
pub(super) fn scalar<'n>(
    cx: &mut Reading<'_>,
    node: &'n Node,
    path: &str,
    allowed: &str,
) -> Option<&'n Scalar> {
    match &node.value {
        Value::Scalar(scalar) => Some(scalar),
        // A variable that could not be put in left nothing behind, and its own note.
        Value::Null => None,
        other => {
            cx.wrong(Mistake::new(&node.at, format!("`{path}` is {}", kind(other)), allowed));
            None
        }
    }
}

/// The offending text, unless it is hidden.
pub(super) fn found(scalar: &Scalar, secret: bool) -> String {
    if secret {
        return "not valid (its value is hidden)".to_owned();
    }
    match scalar.variables.as_slice() {
        [] if scalar.kind == ScalarKind::Text => format!("{:?}", scalar.text),
        [] => scalar.text.clone(),
        names => format!("not valid after putting in ${{{}}} (its value is hidden)", names.join("}, ${")),
    }
}

/// A text as it may be shown: its variables' names, where it has some.
pub(super) fn quoted(node: &Node) -> String {
    match &node.value {
        Value::Scalar(scalar) if scalar.variables.is_empty() => format!("{:?}", scalar.text),
        Value::Scalar(scalar) => format!("the value of ${{{}}}", scalar.variables.join("}, ${")),
        other => kind(other).to_owned(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Scalar(Scalar { kind: ScalarKind::Text, .. }) => "a text",
        Value::Scalar(Scalar { kind: ScalarKind::Number, .. }) => "a number",
        Value::Scalar(Scalar { kind: ScalarKind::Bool, .. }) => "a boolean",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
    }
}

/// The candidate that was probably meant.
pub(crate) fn closest<'c>(name: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    // Jaro-Winkler over 0.8 is a letter or two off; below, a suggestion would be a guess.
    candidates
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
