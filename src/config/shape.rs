//! Whether what a mapping makes can be a command, as far as its text tells: a field that is missing or misspelt is a
//! mistake of the settings, and not of each record.

use super::mistake::Mistake;
use super::names::CommandParts;
use super::section::{Reading, Section, closest};
use super::settings::Route;
use crate::transform::{Mapping, Shape};

/// What a command may have.
const FIELDS: [&str; 8] =
    ["id", "entity", "action", "path", "query", "payload", "if_unmodified_since", "expected_version"];

/// Notes what cannot be right about the expressions of an entry: the whole one, and those of parts.
pub(super) fn check(
    cx: &mut Reading<'_>,
    section: &Section<'_>,
    route: &Route,
    (whole, parts): (&Mapping, &[(&'static str, Mapping)]),
) {
    let needs = match route {
        Route::Commands => None,
        Route::Mapped { entity, action } => cx.names.command_parts(entity, action),
    };
    let mut checks = Checks { cx, section, needs };
    match whole.shape() {
        Shape::Unknown => {}
        Shape::Other => checks.wrong("transform", "makes no object".to_owned(), &FIELDS.join(", ")),
        Shape::Object(fields) => checks.whole(route, whole.shape(), fields),
    }
    if !parts.is_empty() {
        let has = |name: &str| parts.iter().any(|(part, _)| *part == name);
        checks.parts("", has);
        for (part, mapping) in parts {
            match *part {
                "path" => checks.ids("path", mapping.shape()),
                "query" if *mapping.shape() == Shape::Other => {
                    checks.wrong("query", "makes no object".to_owned(), "an object of parameters");
                }
                _ => {}
            }
        }
    }
}

struct Checks<'c, 'r, 's> {
    cx: &'c mut Reading<'r>,
    section: &'c Section<'s>,
    needs: Option<CommandParts>,
}

impl Checks<'_, '_, '_> {
    fn wrong(&mut self, key: &str, what: String, allowed: &str) {
        self.wrong_but(key, what, allowed, None);
    }

    fn wrong_but(&mut self, key: &str, what: String, allowed: &str, meant: Option<&str>) {
        let at = self.section.get(key).map_or(&self.section.at, |node| &node.at);
        let subject = if key.is_empty() { self.section.path.clone() } else { self.section.path_of(key) };
        let mistake = Mistake::new(at, format!("`{subject}` {what}"), allowed);
        let help = meant.map(|name| format!("did you mean `{name}`?")).unwrap_or_default();
        self.cx.wrong(mistake.help(help));
    }

    fn whole(&mut self, route: &Route, shape: &Shape, fields: &[(String, Shape)]) {
        for (name, _) in fields.iter().filter(|(name, _)| !FIELDS.contains(&name.as_str())) {
            let meant = closest(name, FIELDS.into_iter());
            self.wrong_but("transform", format!("makes the field {name:?}"), &FIELDS.join(", "), meant);
        }
        if *route == Route::Commands {
            for name in ["entity", "action"] {
                if shape.field(name).is_none() {
                    let what = format!("makes no `{name}`, and the entry names none");
                    self.wrong("transform", what, "entity and action, here or there");
                }
            }
        }
        self.parts("transform", |name| shape.field(name).is_some());
        if let Some(path) = shape.field("path") {
            self.ids("transform", path);
        }
    }

    /// Which parts there must be.
    fn parts(&mut self, key: &str, has: impl Fn(&str) -> bool) {
        let Some(needs) = self.needs.clone() else { return };
        if !needs.ids.is_empty() && !has("path") {
            self.wrong(key, "makes no `path`".to_owned(), &format!("path with {}", needs.ids.join(", ")));
        }
        if needs.payload && !has("payload") {
            self.wrong(key, "makes no `payload`".to_owned(), "a payload, which this action needs");
        }
        if !needs.payload && has("payload") {
            self.wrong(key, "makes a `payload`".to_owned(), "no payload: this action takes none");
        }
    }

    /// Which ids the path must have.
    fn ids(&mut self, key: &str, path: &Shape) {
        let Some(CommandParts { ids, .. }) = self.needs.clone() else { return };
        match path {
            Shape::Unknown => {}
            Shape::Other => self.wrong(key, "makes a `path` that is no object".to_owned(), &ids.join(", ")),
            Shape::Object(fields) => {
                for (name, _) in fields.iter().filter(|(name, _)| !ids.contains(name)) {
                    let meant = closest(name, ids.iter().map(String::as_str));
                    let allowed = if ids.is_empty() { "no ids".to_owned() } else { ids.join(", ") };
                    self.wrong_but(key, format!("makes the id {name:?} of `path`"), &allowed, meant);
                }
                for missing in ids.iter().filter(|id| path.field(id).is_none()) {
                    self.wrong(key, format!("makes a `path` without {missing:?}"), &ids.join(", "));
                }
            }
        }
    }
}
