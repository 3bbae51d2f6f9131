//! The arguments of `bcbridge dlq`, and what they mean.

use anyhow::{Result, bail};
use clap::builder::PossibleValuesParser;
use jiff::{SpanRelativeTo, Timestamp, Unit};

use crate::catalog::Catalog;
use crate::cli::ConfigArg;
use crate::model::letter::Filter;
use crate::model::reason::Reason;
use crate::transform::Mapping;

/// Arguments of `dlq list`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    pub(super) config: ConfigArg,
    /// The store's name. Default: all.
    pub(super) store: Option<String>,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// The oldest instead of the newest.
    #[arg(long)]
    pub(super) oldest: bool,
    /// How many at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) limit: u32,
}

/// Arguments of `dlq show`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ShowArgs {
    #[command(flatten)]
    pub(super) config: ConfigArg,
    /// The store's name.
    pub(super) store: String,
    /// The letter, as partition/offset.
    #[arg(value_name = "PARTITION/OFFSET", value_parser = place)]
    pub(super) letter: (i32, i64),
    /// Everything, however long it is.
    #[arg(long)]
    pub(super) full: bool,
}

/// Arguments of `dlq stats`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct StatsArgs {
    #[command(flatten)]
    pub(super) config: ConfigArg,
    /// The store's name. Default: all.
    pub(super) store: Option<String>,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
}

/// Arguments of `dlq replay`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ReplayArgs {
    #[command(flatten)]
    pub(super) config: ConfigArg,
    /// The store's name.
    pub(super) store: String,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// All letters of the store; needed where no filter is given.
    #[arg(long)]
    pub(super) all: bool,
    /// Shows what would be done, and does nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Records a second, at most.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) rate: u32,
    /// How many at most; the rest is for another call.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: Option<u32>,
    /// A letter that was replayed so often is left alone.
    #[arg(long, default_value_t = 3)]
    pub(super) max_replays: u32,
    /// Also what may overwrite newer state, or be done twice.
    #[arg(long)]
    pub(super) force: bool,
    /// Replays without asking. Without it, and without a terminal, nothing is replayed.
    #[arg(long)]
    pub(super) yes: bool,
}

/// Arguments of `dlq purge`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PurgeArgs {
    #[command(flatten)]
    pub(super) config: ConfigArg,
    /// The store's name.
    pub(super) store: String,
    /// Those put aside before this moment: RFC 3339, or how long ago, such as 7d.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(super) before: Option<i64>,
    /// All letters of the store.
    #[arg(long, conflicts_with = "before")]
    pub(super) all: bool,
    // Taken so that the refusal can say why.
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// Counts what would be deleted, and deletes nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Deletes without asking. Without it, and without a terminal, nothing is deleted.
    #[arg(long)]
    pub(super) yes: bool,
}

/// Which letters are meant. All conditions must hold; of one that is given more than once, one.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Which letters")]
pub(super) struct FilterArgs {
    /// The reason for which it was put aside.
    #[arg(long, value_parser = PossibleValuesParser::new(Reason::ALL.map(Reason::name)), hide_possible_values = true)]
    reason: Vec<String>,
    /// The last HTTP status.
    #[arg(long)]
    status: Vec<u16>,
    /// The entity.
    #[arg(long)]
    entity: Vec<String>,
    /// The record's key.
    #[arg(long)]
    key: Vec<String>,
    /// The topic that it came from.
    #[arg(long)]
    topic: Vec<String>,
    /// Put aside at this moment or later: RFC 3339, or how long ago, such as 2h.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<i64>,
    /// Put aside before this moment.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<i64>,
    /// One letter, as partition/offset.
    #[arg(long, value_name = "PARTITION/OFFSET", value_parser = place)]
    offset: Vec<(i32, i64)>,
    /// A jq condition on the letter as `list --output json` shows it, with its `value` and `headers`.
    #[arg(long = "where", value_name = "JQ")]
    condition: Option<String>,
}

/// The letters that are meant.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) filter: Filter,
    pub(super) condition: Option<Mapping>,
}

impl FilterArgs {
    pub(super) fn chosen(&self, catalog: &Catalog) -> Result<Chosen> {
        let condition = match self.condition.as_deref().map(Mapping::compile).transpose() {
            Ok(condition) => condition,
            Err(error) => bail!("--where is no jq: {error} (column {})", error.column),
        };
        let entity =
            |name: &String| catalog.entity(name).map_or_else(|| name.clone(), |entity| entity.name.clone());
        let filter = Filter {
            reasons: self.reason.clone(),
            statuses: self.status.clone(),
            entities: self.entity.iter().map(entity).collect(),
            keys: self.key.clone(),
            topics: self.topic.clone(),
            since_ms: self.since,
            until_ms: self.until,
            places: self.offset.clone(),
        };
        Ok(Chosen { filter, condition })
    }

    /// The names of the conditions that were given.
    pub(super) fn given(&self) -> Vec<&'static str> {
        let given = [
            ("--reason", !self.reason.is_empty()),
            ("--status", !self.status.is_empty()),
            ("--entity", !self.entity.is_empty()),
            ("--key", !self.key.is_empty()),
            ("--topic", !self.topic.is_empty()),
            ("--since", self.since.is_some()),
            ("--until", self.until.is_some()),
            ("--offset", !self.offset.is_empty()),
            ("--where", self.condition.is_some()),
        ];
        given.into_iter().filter_map(|(name, is_given)| is_given.then_some(name)).collect()
    }
}

/// A letter's place: `2/17`.
fn place(text: &str) -> Result<(i32, i64), String> {
    let parts = text.split_once('/').and_then(|(partition, offset)| {
        let (partition, offset) = (partition.parse::<u16>().ok()?, offset.parse::<i64>().ok()?);
        (offset >= 0).then_some((i32::from(partition), offset))
    });
    parts.ok_or_else(|| "a letter is named by partition/offset, such as 2/17; see `dlq list`".to_owned())
}

/// A moment in milliseconds since the epoch: RFC 3339, or how long ago.
fn moment(text: &str) -> Result<i64, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.as_millisecond());
    }
    let span = text.parse::<jiff::Span>().ok();
    let ago_ms = span.and_then(|span| {
        let days = SpanRelativeTo::days_are_24_hours();
        span.total((Unit::Millisecond, days)).ok().filter(|ms| ms.is_finite() && *ms >= 0.0)
    });
    let Some(ago_ms) = ago_ms else {
        return Err(
            "a moment is a time such as 2026-01-02T03:04:05Z, or how long ago: 30m, 2h, 7d".to_owned()
        );
    };
    Ok(Timestamp::now().as_millisecond() - ago_ms as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_or_how_long_ago() {
        assert_eq!(moment("1970-01-01T00:00:01Z"), Ok(1_000));
        for (text, ms) in [("90s", 90_000), ("2h", 7_200_000), ("7d", 604_800_000), ("1d 12h", 129_600_000)] {
            let ago = Timestamp::now().as_millisecond() - moment(text).unwrap();
            assert!((ms - 1..ms + 5_000).contains(&ago), "{text}: {ago}");
        }
        for text in ["", "2", "yesterday", "-2h", "1 month", "2026-01-02"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_letter_is_named_by_partition_and_offset() {
        assert_eq!(place("2/17"), Ok((2, 17)));
        for text in ["17", "2/", "/17", "-1/3", "1/-3", "1/2/3", "a/b"] {
            assert!(place(text).is_err(), "{text}");
        }
    }
}
