//! The mapping language: jq, compiled once when settings are loaded, run on every record.
//!
//! A mapping sees its input, the variables that its caller names, and nothing else: no clock, no environment, no files, no further inputs, no output
//! beside its result; those functions of jq do not exist here. It is bounded in steps, in memory, in depth of
//! values and calls, and in the size of what it makes (see `limits`), and its caller may stop it at any step.
//! jq's `try` cannot catch that stop. Fails with one clause and, for text that does not compile, its place.

mod engine;
mod limits;
mod record;
mod rewrite;
mod shape;
mod value;

use std::fmt;
use std::sync::Arc;

use engine::Given;
use serde_json::Value;
use thiserror::Error;

pub use limits::Limits;
pub use record::{RECORD_VARIABLES, variables};
pub use shape::Shape;

/// A compiled mapping. Cheap to clone; `Debug` and `Display` give its text.
#[derive(Clone)]
pub struct Mapping {
    text: Arc<str>,
    /// Absent for the identity, which needs no engine.
    program: Option<Arc<engine::Program>>,
    shape: Shape,
}

/// Why a text is no mapping, or why a mapping gave no result.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct MappingError {
    /// Line of the text, counted from 1; 0 when it is the run that failed.
    pub line: usize,
    /// Column of the text in characters, counted from 1; 0 when it is the run that failed.
    pub column: usize,
    /// One lowercase clause. A run's clause may repeat parts of the record: show it to the record's owner
    /// (dead letter), do not log it.
    pub message: String,
    /// Whether a limit or the caller stopped the run, rather than the mapping itself.
    pub stopped: bool,
}

impl Mapping {
    /// The mapping that changes nothing, `.`.
    #[must_use]
    pub fn identity() -> Self {
        Self { text: ".".into(), program: None, shape: Shape::Unknown }
    }

    /// Compiles a jq expression.
    ///
    /// # Errors
    /// With line and column, when the text is no jq, calls what does not exist, or is too long.
    pub fn compile(text: &str) -> Result<Self, MappingError> {
        Self::compile_with(text, &[])
    }

    /// Compiles a jq expression that sees variables of these names, each with its `$`.
    ///
    /// # Errors
    /// As [`Mapping::compile`].
    pub fn compile_with(text: &str, variables: &[&'static str]) -> Result<Self, MappingError> {
        if text.trim() == "." {
            return Ok(Self { text: text.into(), ..Self::identity() });
        }
        let (program, shape) = engine::compile(text, variables)?;
        Ok(Self { text: text.into(), program: Some(Arc::new(program)), shape })
    }

    /// What can be told of the result without a record.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The text it was compiled from.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is `.`: callers can pass the bytes through as they are.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.program.is_none()
    }

    /// The first output for `input`, within the default limits.
    ///
    /// # Errors
    /// When the mapping fails, has no output, or exceeds a limit.
    pub fn run(&self, input: &Value) -> Result<Value, MappingError> {
        self.run_within(input, &Limits::default(), &|| false)
    }

    /// The first output for `input`, with the values of the variables in the order of their names.
    ///
    /// # Errors
    /// As [`Mapping::run`].
    pub fn run_with(&self, input: &Value, variables: &[Value]) -> Result<Value, MappingError> {
        match &self.program {
            None => Ok(input.clone()),
            Some(program) => engine::run(program, &Given { input, variables }, &Limits::default(), &|| false),
        }
    }

    /// The first output for `input`. `stop` is asked every few hundred steps whether to give up, for callers with
    /// a deadline.
    ///
    /// # Errors
    /// When the mapping fails, has no output, exceeds a limit, or `stop` says so.
    pub fn run_within(
        &self,
        input: &Value,
        limits: &Limits,
        stop: &dyn Fn() -> bool,
    ) -> Result<Value, MappingError> {
        match &self.program {
            None => Ok(input.clone()),
            Some(program) => engine::run(program, &Given { input, variables: &[] }, limits, stop),
        }
    }

    /// Whether the first output is neither false nor null; no output counts as false, as in jq's `select`.
    ///
    /// # Errors
    /// When the mapping fails or exceeds a limit.
    pub fn test(&self, input: &Value) -> Result<bool, MappingError> {
        self.test_with(input, &[])
    }

    /// As [`Mapping::test`], with the values of the variables in the order of their names.
    ///
    /// # Errors
    /// As [`Mapping::test`].
    pub fn test_with(&self, input: &Value, variables: &[Value]) -> Result<bool, MappingError> {
        let truth = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
        let Some(program) = &self.program else { return Ok(truth(input)) };
        match engine::first(program, &Given { input, variables }, &Limits::default(), &|| false)? {
            Some(value) => Ok(truth(&value)),
            None => Ok(false),
        }
    }
}

impl MappingError {
    fn at_run(message: impl Into<String>, stopped: bool) -> Self {
        Self { line: 0, column: 0, message: message.into(), stopped }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({:?})", self.text)
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
