//! Why a record was put aside: a closed list with stable names, used in dead letters, results and counters.

/// Why a record ended as a dead letter or a rejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// An authentic callback whose content could not be understood.
    Quarantined,
    /// An event of which nothing can be read: BigCommerce has no endpoint for it.
    NotReadable,
    /// A record that is not the JSON it should be.
    BadJson,
    /// A field that the format does not know, or of the wrong type.
    BadField,
    /// A store that is not configured.
    UnknownStore,
    /// An entity that the catalogue does not have.
    UnknownEntity,
    /// An action that the entity does not have.
    UnknownAction,
    /// A path id that is missing, empty or malformed.
    BadId,
    /// The payload is missing, or larger than the endpoint takes.
    BadPayload,
    /// BigCommerce refused the request for its content.
    Refused,
    /// BigCommerce does not know the thing.
    Missing,
    /// BigCommerce holds something else under the same unique value.
    Conflict,
    /// The thing changed since the version that the command asks for.
    Stale,
    /// The token lacks a scope, or is not valid.
    Denied,
    /// A reply that could not be read as the entity that was asked for.
    BadReply,
    /// Tried as often as the retry budget allows.
    Exhausted,
    /// It may or may not have been applied, and trying again could do it twice.
    InDoubt,
    /// A jq expression failed on it.
    TransformFailed,
    /// A person dropped it, since it waited behind a command that failed.
    Dropped,
}

impl Reason {
    /// All reasons, for documentation and counters.
    pub const ALL: [Self; 19] = [
        Self::Quarantined,
        Self::NotReadable,
        Self::BadJson,
        Self::BadField,
        Self::UnknownStore,
        Self::UnknownEntity,
        Self::UnknownAction,
        Self::BadId,
        Self::BadPayload,
        Self::Refused,
        Self::Missing,
        Self::Conflict,
        Self::Stale,
        Self::Denied,
        Self::BadReply,
        Self::Exhausted,
        Self::InDoubt,
        Self::TransformFailed,
        Self::Dropped,
    ];

    /// The stable name: a label, a header value, a heading in the docs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quarantined => "quarantined",
            Self::NotReadable => "not_readable",
            Self::BadJson => "bad_json",
            Self::BadField => "bad_field",
            Self::UnknownStore => "unknown_store",
            Self::UnknownEntity => "unknown_entity",
            Self::UnknownAction => "unknown_action",
            Self::BadId => "bad_id",
            Self::BadPayload => "bad_payload",
            Self::Refused => "refused",
            Self::Missing => "missing",
            Self::Conflict => "conflict",
            Self::Stale => "stale",
            Self::Denied => "denied",
            Self::BadReply => "bad_reply",
            Self::Exhausted => "exhausted",
            Self::InDoubt => "in_doubt",
            Self::TransformFailed => "transform_failed",
            Self::Dropped => "dropped",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_section_in_the_docs_and_every_section_its_reason() {
        let docs = include_str!("../../docs/reasons.md");
        let sections: Vec<&str> = docs.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(sections, Reason::ALL.map(Reason::name));
    }
}
