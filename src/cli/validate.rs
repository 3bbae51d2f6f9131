//! `bcbridge validate`: every mistake of the settings at once, and with `--online` what the outside says. Changes
//! nothing. Never prints a secret. Exit code 0 when all is well, 64 when the settings are wrong, 1 when the outside
//! disagrees.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::config::{self, Bootstrap, EntityNames, MistakeRow, Settings, Source};
use crate::kafka::settings::{ClientSettings, SettingsError};

/// All is well.
pub const EXIT_OK: u8 = 0;
/// The online checks found something wrong.
pub const EXIT_ONLINE: u8 = 1;
/// The settings are wrong (`EX_USAGE` of sysexits).
pub const EXIT_BAD_CONFIG: u8 = 64;

/// Arguments of `validate`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The settings file. Default: $BCBRIDGE_CONFIG, ./bcbridge.yaml, /etc/bcbridge/bcbridge.yaml.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Also asks each store (whether its token works and may see the hooks) and the cluster (whether the topics are
    /// there, and which promises their settings weaken).
    #[arg(long)]
    pub online: bool,
}

/// What checks everything outside, given settings that are right in themselves: one row per finding.
pub type Online<'a> = &'a dyn Fn(&Settings) -> Vec<MistakeRow>;

/// What `validate` needs from its surroundings.
pub struct Surroundings<'a> {
    /// Looks a variable up.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The catalogue.
    pub names: &'a dyn EntityNames,
    /// The checks of `--online`.
    pub online: Online<'a>,
    /// Whether `--output json` was given.
    pub json: bool,
}

/// Checks the settings and writes what it found: the report to `out`, people's mistakes to `err`. Gives the exit
/// code.
///
/// # Errors
/// When nothing can be written.
pub fn run(
    args: &Args,
    around: &Surroundings<'_>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<u8> {
    let loaded = config::find(args.config.as_deref(), around.env)
        .and_then(|source| Ok((config::load_source(&source, around.env, around.names)?, source)));
    let (settings, source) = match loaded {
        Ok(loaded) => loaded,
        Err(errors) => {
            if around.json {
                writeln!(out, "{}", json!(errors.rows()))?;
            } else {
                writeln!(err, "{errors}")?;
            }
            return Ok(EXIT_BAD_CONFIG);
        }
    };
    let refused = refused_properties(&settings);
    if !refused.is_empty() {
        if around.json {
            writeln!(out, "{}", json!(refused))?;
        } else {
            write_rows(&refused, err)?;
        }
        return Ok(EXIT_BAD_CONFIG);
    }
    let found = if args.online { (around.online)(&settings) } else { Vec::new() };
    if around.json {
        writeln!(out, "{}", json!(found))?;
    } else {
        write!(out, "{}", summary(&settings, &source))?;
        write_rows(&found, err)?;
    }
    // Warnings go beside the report, so that the report stays what a program expects.
    for warning in &settings.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    Ok(if found.is_empty() { EXIT_OK } else { EXIT_ONLINE })
}

/// The properties that librdkafka does not know, or whose values it refuses: only it can tell.
pub(super) fn refused_properties(settings: &Settings) -> Vec<MistakeRow> {
    let value = |(name, value): (&String, &SecretString)| (name.clone(), value.expose_secret().to_owned());
    let properties = settings.kafka.properties.iter().map(value).collect();
    let refused = ClientSettings::new("none:9092", properties).err().unwrap_or_default();
    let row = |error: &SettingsError| MistakeRow {
        file: String::new(),
        line: 0,
        column: 0,
        message: error.to_string(),
        allowed: "a property of librdkafka, and a value that it takes".to_owned(),
        help: "see librdkafka's CONFIGURATION.md".to_owned(),
    };
    refused.iter().map(row).collect()
}

/// Findings that have no place in the file.
pub(super) fn write_rows(rows: &[MistakeRow], err: &mut dyn Write) -> io::Result<()> {
    for row in rows {
        writeln!(err, "error: {}", row.message)?;
        for (label, text) in [("allowed", &row.allowed), ("help", &row.help)] {
            if !text.is_empty() {
                writeln!(err, "  {label}: {text}")?;
            }
        }
    }
    Ok(())
}

/// What the settings amount to, for people.
fn summary(settings: &Settings, source: &Source) -> String {
    let name = match source {
        Source::File(path) => path.display().to_string(),
        Source::Environment => "the environment".to_owned(),
    };
    let brokers = match &settings.kafka.bootstrap {
        Bootstrap::Embedded => "the built-in broker",
        Bootstrap::Servers(servers) => servers,
    };
    let stores: Vec<&str> = settings.stores.iter().map(|store| store.name.as_str()).collect();
    let mut text = String::new();
    let lines = [
        format!("settings from {name} are valid"),
        format!("  kafka     {brokers}, prefix {}", settings.kafka.prefix),
        format!("  receiver  {}", settings.receiver.listen),
        format!("  console   {}", settings.console.listen),
        format!("  stores    {}", stores.join(", ")),
        format!("  incoming  {} entities", settings.incoming.len()),
        format!("  outgoing  {} topics", settings.outgoing.len()),
    ];
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    text
}
