//! Which dead letters are meant.

use super::Letter;

/// Conditions, all of which a letter must meet; of those that are lists, one item each. Without any, all are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Names of reasons.
    pub reasons: Vec<String>,
    /// HTTP statuses.
    pub statuses: Vec<u16>,
    /// Entities by name.
    pub entities: Vec<String>,
    /// Keys, as texts.
    pub keys: Vec<String>,
    /// Topics that the failed records are of.
    pub topics: Vec<String>,
    /// Put aside at this moment or later, in milliseconds since the epoch.
    pub since_ms: Option<i64>,
    /// Put aside before this moment.
    pub until_ms: Option<i64>,
    /// Single letters, as partition and offset.
    pub places: Vec<(i32, i64)>,
}

impl Filter {
    /// Whether a letter is meant.
    pub fn covers(&self, letter: &Letter) -> bool {
        let place = (letter.position.partition.number, letter.position.offset);
        any(&self.reasons, |reason| *reason == letter.reason)
            && any(&self.statuses, |status| Some(*status) == letter.status)
            && any(&self.entities, |entity| Some(entity) == letter.entity.as_ref())
            && any(&self.keys, |key| Some(key.as_bytes()) == letter.key.as_deref())
            && any(&self.topics, |topic| Some(topic.as_str()) == letter.origin_topic.as_deref())
            && self.since_ms.is_none_or(|since| letter.at_ms >= since)
            && self.until_ms.is_none_or(|until| letter.at_ms < until)
            && any(&self.places, |wanted| *wanted == place)
    }

    /// Whether it leaves nothing out.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether one of them fits, or there is none to fit.
fn any<T>(wanted: &[T], fits: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(fits)
}
