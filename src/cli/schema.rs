//! `bcbridge schema export DIR`: writes the contracts that are built in. Fails when a file cannot be written.

use std::io;
use std::path::{Path, PathBuf};

/// File name and text of every contract.
pub const SCHEMAS: [(&str, &str); 9] = [
    ("asyncapi.json", include_str!("../../schemas/asyncapi.json")),
    ("command.schema.json", include_str!("../../schemas/command.schema.json")),
    ("config.schema.json", include_str!("../../schemas/config.schema.json")),
    ("dead-letter-headers.schema.json", include_str!("../../schemas/dead-letter-headers.schema.json")),
    ("event-headers.schema.json", include_str!("../../schemas/event-headers.schema.json")),
    ("intake-headers.schema.json", include_str!("../../schemas/intake-headers.schema.json")),
    ("notification.schema.json", include_str!("../../schemas/notification.schema.json")),
    ("result.schema.json", include_str!("../../schemas/result.schema.json")),
    ("signal.schema.json", include_str!("../../schemas/signal.schema.json")),
];

/// Writes every contract into `dir`, which is made when missing, and gives the paths written.
///
/// # Errors
/// When the directory or a file cannot be written; files written before stay.
pub fn export(dir: &Path) -> io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir)?;
    let mut written = Vec::new();
    for (name, text) in SCHEMAS {
        let path = dir.join(name);
        std::fs::write(&path, text)?;
        written.push(path);
    }
    Ok(written)
}
