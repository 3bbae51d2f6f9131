//! Variables in values: `${NAME}`, `${NAME:-default}`, `${NAME:?message}`. Put in after the file was parsed, so a
//! value is always one value, whatever it contains. `$${` stands for a literal `${`; any other `$` is left alone,
//! so the variables of a jq expression need no escape. Reads no environment itself: the caller brings a function.

use super::tree::{Node, Place, Value};

/// Looks a variable up.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Defaults may hold variables, which may have defaults: as deep as this and no deeper.
const MAX_NESTING: usize = 8;
/// A value is a setting, not a document. Large enough for a certificate chain.
const MAX_EXPANDED_BYTES: usize = 1 << 20;

/// What is wrong with a variable, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unset {
    pub(super) message: String,
    pub(super) allowed: String,
    pub(super) help: String,
}

/// Puts variables into every text below `node`. Each mistake is reported and leaves an empty text behind.
pub(super) fn expand_tree(node: &mut Node, env: Env<'_>, report: &mut dyn FnMut(&Place, Unset)) {
    match &mut node.value {
        Value::Null => {}
        Value::Scalar(scalar) => {
            if !scalar.text.contains("${") {
                return;
            }
            let mut variables = Vec::new();
            match expand(&scalar.text, env, &mut variables, 0) {
                Ok(text) => scalar.text = text,
                Err(unset) => {
                    report(&node.at, unset);
                    node.value = Value::Null;
                    return;
                }
            }
            scalar.variables = variables;
        }
        Value::List(items) => items.iter_mut().for_each(|item| expand_tree(item, env, report)),
        Value::Map(entries) => entries.iter_mut().for_each(|(_, value)| expand_tree(value, env, report)),
    }
}

/// One text with its variables put in; their names are added to `used`.
pub(super) fn expand(
    text: &str,
    env: Env<'_>,
    used: &mut Vec<String>,
    depth: usize,
) -> Result<String, Unset> {
    if depth > MAX_NESTING {
        return Err(unset(
            format!("variables nested more than {MAX_NESTING} deep"),
            "a default without further variables",
            "write the default out".to_owned(),
        ));
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let body = &rest[at + 2..];
        let Some(end) = closing(body) else {
            return Err(unset(
                "`${` without its `}`".to_owned(),
                "${NAME}, ${NAME:-default} or ${NAME:?message}",
                "close the brace, or write `$${` for a literal `${`".to_owned(),
            ));
        };
        out.push_str(&variable(&body[..end], env, used, depth)?);
        rest = &body[end + 1..];
        if out.len() > MAX_EXPANDED_BYTES {
            return Err(unset(
                format!("value longer than {MAX_EXPANDED_BYTES} bytes once its variables are put in"),
                "a shorter value",
                "put large secrets into a file and name it with the `_file` key".to_owned(),
            ));
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The brace that ends a variable, past those of variables inside its default.
pub(super) fn closing(body: &str) -> Option<usize> {
    let mut open = 0_usize;
    let bytes = body.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if at > 0 && bytes[at - 1] == b'$' => open += 1,
            b'}' if open == 0 => return Some(at),
            b'}' => open -= 1,
            _ => {}
        }
    }
    None
}

/// What stands for `NAME`, `NAME:-default` or `NAME:?message`.
fn variable(body: &str, env: Env<'_>, used: &mut Vec<String>, depth: usize) -> Result<String, Unset> {
    let (name, rest) = body.split_once(':').map_or((body, None), |(name, rest)| (name, Some(rest)));
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !valid {
        return Err(unset(
            format!("`{name}` is not the name of a variable"),
            "letters, digits and underscores, not starting with a digit",
            "correct the name, or write `$${` for a literal `${`".to_owned(),
        ));
    }
    used.push(name.to_owned());
    let value = env(name);
    let filled = value.clone().filter(|value| !value.is_empty());
    match rest.map(|rest| rest.split_at(rest.len().min(1))) {
        None => value.ok_or_else(|| missing(name, "")),
        Some(("-", default)) => filled.map_or_else(|| expand(default, env, used, depth + 1), Ok),
        Some(("?", message)) => filled.ok_or_else(|| missing(name, message)),
        Some(_) => Err(unset(
            format!("`${{{name}:` is followed by neither `-` nor `?`"),
            "${NAME}, ${NAME:-default} or ${NAME:?message}",
            "correct the form of the variable".to_owned(),
        )),
    }
}

fn missing(name: &str, message: &str) -> Unset {
    let message = if message.is_empty() {
        format!("variable {name} is not set")
    } else {
        format!("variable {name} is not set: {message}")
    };
    unset(
        message,
        "a variable of the environment",
        format!("set {name}, or give a default with `${{{name}:-...}}`"),
    )
}

fn unset(message: String, allowed: &str, help: String) -> Unset {
    Unset { message, allowed: allowed.to_owned(), help }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<String, String> {
        let env = |name: &str| match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICKY" => Some("${A}".to_owned()),
            _ => None,
        };
        expand(text, &env, &mut Vec::new(), 0).map_err(|unset| unset.message)
    }

    #[test]
    fn every_form_of_a_variable_is_put_in() {
        let check = |text: &str, want: &str| assert_eq!(run(text).as_deref(), Ok(want), "{text}");
        check("x${A}y${A}", "xoneyone");
        check("${NONE:-d}", "d");
        check("${EMPTY:-d}", "d");
        check("${EMPTY}", "");
        check("${NONE:-}", "");
        check("${NONE:-${A}-${NONE:-z}}", "one-z");
        check("${A:?needed}", "one");
        check("$${A} $A $x as {$y}", "${A} $A $x as {$y}");
        check("${NONE:-a:b}", "a:b");
    }

    #[test]
    fn a_value_is_not_expanded_again() {
        assert_eq!(run("${TRICKY}").as_deref(), Ok("${A}"));
    }

    #[test]
    fn what_cannot_be_put_in_is_named() {
        let check = |text: &str, want: &str| assert_eq!(run(text), Err(want.to_owned()), "{text}");
        check("${NONE}", "variable NONE is not set");
        check("${NONE:?ask the shop's owner}", "variable NONE is not set: ask the shop's owner");
        check("${EMPTY:?no}", "variable EMPTY is not set: no");
        check("${A", "`${` without its `}`");
        check("${a b}", "`a b` is not the name of a variable");
        check("${A:x}", "`${A:` is followed by neither `-` nor `?`");
    }
}
