//! Templates of topic names and record keys: `{prefix}.{store}.{entity}`. Parsed once when the settings are
//! loaded; rendering cannot fail.

use std::fmt;

use thiserror::Error;

/// A parsed template; `Display` gives its text back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Template {
    parts: Vec<Part>,
}

/// One piece of a template.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    Text(String),
    Hole(Hole),
}

/// What may stand between braces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hole {
    /// `kafka.prefix`.
    Prefix,
    /// The store's name.
    Store,
    /// The entity's name.
    Entity,
    /// The entity's id as text; only in keys.
    Id,
}

impl Hole {
    /// All of them, in the order of the documentation.
    pub const ALL: [Hole; 4] = [Hole::Prefix, Hole::Store, Hole::Entity, Hole::Id];

    /// The word between the braces.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Hole::Prefix => "prefix",
            Hole::Store => "store",
            Hole::Entity => "entity",
            Hole::Id => "id",
        }
    }
}

/// What fills the holes. A value that a template does not name is not used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fill<'a> {
    /// For `{prefix}`.
    pub prefix: &'a str,
    /// For `{store}`.
    pub store: &'a str,
    /// For `{entity}`.
    pub entity: &'a str,
    /// For `{id}`.
    pub id: &'a str,
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// A brace without its partner.
    #[error("brace without its partner at character {at}")]
    Brace {
        /// Counted from 1.
        at: usize,
    },
    /// A word that is not known here.
    #[error("unknown placeholder {{{name}}}")]
    Unknown {
        /// The word found.
        name: String,
    },
    /// Nothing at all.
    #[error("empty template")]
    Empty,
}

impl Template {
    /// Parses `text`, in which only the holes of `allowed` may appear. Braces cannot be escaped: neither topic
    /// names nor ids contain them.
    ///
    /// # Errors
    /// When the text is empty, a brace has no partner, or a placeholder is unknown.
    pub fn parse(text: &str, allowed: &[Hole]) -> Result<Self, TemplateError> {
        if text.is_empty() {
            return Err(TemplateError::Empty);
        }
        let brace = |offset: usize| TemplateError::Brace { at: text[..offset].chars().count() + 1 };
        let mut parts = Vec::new();
        let mut from = 0;
        while let Some(found) = text[from..].find(['{', '}']) {
            let open = from + found;
            if text.as_bytes()[open] == b'}' {
                return Err(brace(open));
            }
            let close = text[open..].find('}').ok_or_else(|| brace(open))? + open;
            let name = &text[open + 1..close];
            let hole = allowed.iter().copied().find(|hole| hole.name() == name);
            let hole = hole.ok_or_else(|| TemplateError::Unknown { name: name.to_owned() })?;
            if open > from {
                parts.push(Part::Text(text[from..open].to_owned()));
            }
            parts.push(Part::Hole(hole));
            from = close + 1;
        }
        if from < text.len() {
            parts.push(Part::Text(text[from..].to_owned()));
        }
        Ok(Self { parts })
    }

    /// The text with its holes filled.
    #[must_use]
    pub fn render(&self, fill: Fill<'_>) -> String {
        let mut out = String::new();
        for part in &self.parts {
            out.push_str(match part {
                Part::Text(text) => text,
                Part::Hole(Hole::Prefix) => fill.prefix,
                Part::Hole(Hole::Store) => fill.store,
                Part::Hole(Hole::Entity) => fill.entity,
                Part::Hole(Hole::Id) => fill.id,
            });
        }
        out
    }

    /// Whether `hole` appears.
    #[must_use]
    pub fn has(&self, hole: Hole) -> bool {
        self.parts.contains(&Part::Hole(hole))
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => f.write_str(text)?,
                Part::Hole(hole) => write!(f, "{{{}}}", hole.name())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_renders_and_prints_itself() {
        let text = "{prefix}.{store}.x.{entity}";
        let template = Template::parse(text, &Hole::ALL).unwrap();
        assert_eq!(template.to_string(), text);
        let fill = Fill { prefix: "bigcommerce", store: "main", entity: "order", id: "" };
        assert_eq!(template.render(fill), "bigcommerce.main.x.order");
        assert!(template.has(Hole::Entity) && !template.has(Hole::Id));
    }

    #[test]
    fn broken_templates_say_what_is_wrong() {
        let check = |text: &str, want: TemplateError| {
            assert_eq!(Template::parse(text, &[Hole::Store]), Err(want), "{text}");
        };
        check("", TemplateError::Empty);
        check("é{store", TemplateError::Brace { at: 2 });
        check("a}b", TemplateError::Brace { at: 2 });
        check("{shop}", TemplateError::Unknown { name: "shop".into() });
        check("{id}", TemplateError::Unknown { name: "id".into() });
    }
}
