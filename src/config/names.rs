//! What the settings need to know about entities. The catalogue answers; a trait keeps this module free of it,
//! and lets a test bring three entities of its own.

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
    /// The actions of an entity.
    fn actions(&self, entity: &str) -> Vec<String>;
    /// The entities that are bridged when the file has no `incoming`.
    fn incoming_default(&self) -> Vec<String> {
        self.all().into_iter().filter(|entity| !self.scopes(entity).is_empty()).collect()
    }
}
