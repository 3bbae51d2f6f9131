//! What the settings need to know about entities. The catalogue answers; a trait keeps this module free of it,
//! and lets a test bring three entities of its own.

/// What is wrong with a row of the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowFault {
    /// The entity's name; of a row without one, `row N`, counted from 1.
    pub entity: String,
    /// One clause.
    pub what: String,
}

/// What a command of an action has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandParts {
    /// The ids of its `path`: all of them, and no others.
    pub ids: Vec<String>,
    /// It has a payload; else it must not have one.
    pub payload: bool,
}

/// Names known to the catalogue. Every method takes the name as it stands in the catalogue, except
/// [`EntityNames::resolve`], which takes what a person wrote.
pub trait EntityNames {
    /// The catalogue's name for an entity or one of its aliases.
    fn resolve(&self, name: &str) -> Option<String>;
    /// Every name, for suggestions.
    fn all(&self) -> Vec<String>;
    /// The webhook scopes that an entity is subscribed to unless the file says otherwise; none when it has no webhook.
    fn scopes(&self, entity: &str) -> Vec<String>;
    /// All webhook scopes that tell of an entity; `{channel_id}` stands for the channel's number.
    fn all_scopes(&self, entity: &str) -> Vec<String> {
        self.scopes(entity)
    }
    /// The sub-resources that can be read along with an entity.
    fn includes(&self, entity: &str) -> Vec<String>;
    /// The sub-resources that are read along with an entity when the file does not say which.
    fn default_includes(&self, _entity: &str) -> Vec<String> {
        Vec::new()
    }
    /// What the paths of its list, and of the lists that lead to it, want filled; none where it is listed nowhere or
    /// stands below nothing.
    fn places(&self, _entity: &str) -> Vec<String> {
        Vec::new()
    }
    /// The actions of an entity.
    fn actions(&self, entity: &str) -> Vec<String>;
    /// What a command of an action has; none where nothing is known of it.
    fn command_parts(&self, _entity: &str, _action: &str) -> Option<CommandParts> {
        None
    }
    /// The entities that are bridged when the file has no `incoming`.
    fn incoming_default(&self) -> Vec<String> {
        self.all().into_iter().filter(|entity| !self.scopes(entity).is_empty()).collect()
    }
    /// Whether anything says how an entity is read.
    fn is_readable(&self, _entity: &str) -> bool {
        true
    }
    /// The names of a catalogue that has these rows as well, or in the place of its own.
    ///
    /// # Errors
    /// Everything that is wrong with the rows.
    fn with_rows(&self, rows: &[serde_json::Value]) -> Result<Box<dyn EntityNames>, Vec<RowFault>> {
        let fault = |at| RowFault { entity: format!("row {at}"), what: "no row can be added here".into() };
        Err((1..=rows.len()).map(fault).collect())
    }
}
