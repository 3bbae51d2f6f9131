//! `bcbridge schema`: the wire contracts, as files.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;

/// What to do with the schemas.
#[derive(Debug, Subcommand)]
pub enum SchemaCommand {
    /// Writes every schema into a directory.
    Export {
        /// The directory; made when it is missing.
        dir: PathBuf,
    },
}

pub(super) fn run(command: SchemaCommand) -> Result<ExitCode> {
    let SchemaCommand::Export { dir } = command;
    let written = crate::config::schema::export(&dir).with_context(|| format!("writing to {}", dir.display()))?;
    println!("wrote {} files to {}", written.len(), dir.display());
    Ok(ExitCode::SUCCESS)
}
