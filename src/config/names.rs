//! What the settings need to know about entities. The catalogue answers; a trait keeps this module free of it,
//! and lets a test bring three entities of its own.

/// Names known to the catalogue. Every method takes the name as it stands in the catalogue, except
/// [`EntityNames::resolve`], which takes what a person wrote.
pub trait EntityNames {
    /// The catalogue's name for an entity or one of its aliases.
    fn resolve(&self, name: &str) -> Option<String>;
    /// Every name, for suggestions.
    fn all(&self) -> Vec<String>;
    /// The webhook scopes of an entity; none when it has no webhook.
    fn scopes(&self, entity: &str) -> Vec<String>;
    /// The sub-resources that can be read along with an entity.
    fn includes(&self, entity: &str) -> Vec<String>;
    /// The actions of an entity.
    fn actions(&self, entity: &str) -> Vec<String>;
    /// The entities that are bridged when the file has no `incoming`: all that announce themselves.
    fn incoming_default(&self) -> Vec<String> {
        self.all().into_iter().filter(|entity| !self.scopes(entity).is_empty()).collect()
    }
}
