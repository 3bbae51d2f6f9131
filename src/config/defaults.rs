//! Every default, in one place, each with its reason. Nothing else in the program holds a default of a setting.

use std::time::Duration;

/// First part of every topic's name. Says whose data it is to whoever lists the cluster's topics.
pub const PREFIX: &str = "bigcommerce";
/// Six divides by one, two, three and six consumers, and cannot be changed later without moving keys.
pub const PARTITIONS: u32 = 6;
/// Survives the loss of one broker while another is being restarted.
pub const REPLICATION_FACTOR: u16 = 3;
/// The built-in broker is one process; a second copy has no place to be.
pub const REPLICATION_FACTOR_EMBEDDED: u16 = 1;
/// Missing topics are created, since their settings (compaction, retention) matter and are easy to get wrong by hand.
pub const CREATE_TOPICS: bool = true;
/// The broker that is built in: whoever names no cluster wants to try things out.
pub const BOOTSTRAP: &str = "embedded";

/// Hints waiting to be read.
pub const TOPIC_WEBHOOKS: &str = "{prefix}.{store}.webhooks";
/// State of entities: one topic each, since consumers subscribe to what they need and compaction needs one key space.
pub const TOPIC_ENTITY: &str = "{prefix}.{store}.{entity}";
/// Dead letters of a store, both ways.
pub const TOPIC_DLQ: &str = "{prefix}.{store}.dlq";
/// What is known to be published.
pub const TOPIC_LEDGER: &str = "{prefix}.{store}.ledger";
/// Commands to a store.
pub const TOPIC_COMMANDS: &str = "{prefix}.{store}.commands";
/// What became of commands.
pub const TOPIC_RESULTS: &str = "{prefix}.{store}.results";
/// Control of all stores: one topic, because its only partition elects the leader.
pub const TOPIC_SIGNALS: &str = "{prefix}.signals";
/// Progress of all stores, for people and tools that watch.
pub const TOPIC_NOTIFICATIONS: &str = "{prefix}.notifications";
/// The id alone: what Kafka users expect as the key of an entity's topic.
pub const KEY: &str = "{id}";

/// All interfaces: callbacks come from the internet, through whatever stands in front.
pub const RECEIVER_LISTEN: &str = "0.0.0.0:8080";
/// This machine only: the console can replay and reload. Opening it takes a decision, and a token.
pub const CONSOLE_LISTEN: &str = "127.0.0.1:8081";
/// BigCommerce retries a callback for 48 hours; a day more for clocks and slow weekends.
pub const PAST_WINDOW: Duration = Duration::from_secs(72 * 3600);
/// Below the usual limit of open files (1024 soft on many systems is raised at start), far above what 50 callbacks a
/// second on kept-alive connections need.
pub const MAX_CONNECTIONS: u32 = 1024;
/// One sender, or one proxy that is not trusted, cannot take all connections.
pub const MAX_CONNECTIONS_PER_PEER: u32 = 64;
/// Relative to the working directory, so that trying out needs no rights; services set an absolute path.
pub const SPOOL_DIR: &str = "bcbridge-data/spool";
/// 48 hours at 50 callbacks a second of 1.1 KiB, the longest outage that BigCommerce's own retries would bridge.
pub const SPOOL_MAX_BYTES: u64 = 10 << 30;

/// BigCommerce's API; another origin is for the sandbox or a recording proxy.
pub const BASE_URI: &str = "https://api.bigcommerce.com";
/// A fifth of the quota for the store's other apps: they cannot see each other, and a 429 hits all alike.
pub const RESERVE: f64 = 0.2;
/// A bridge that leaves less than a twentieth for itself has stopped working.
pub const RESERVE_MAX: f64 = 0.95;

/// Callbacks about one change arrive within a few hundred milliseconds (an order sends several); waiting longer adds delay.
pub const QUIET: Duration = Duration::from_millis(250);
/// An entity that changes all the time is still published every two seconds.
pub const MAX_WAIT: Duration = Duration::from_secs(2);
/// BigCommerce answers 404 for a moment after a create, from a replica that is behind; a minute is far beyond that.
pub const CONFIRM_GONE: Duration = Duration::from_secs(60);
/// Where no date tells whether a read came too early, a second one tells; replicas lag by seconds.
pub const SECOND_READ: Duration = Duration::from_secs(60);

/// The settings used when there is no file: one store, described by environment variables.
pub const NO_FILE: &str = include_str!("no_file.yaml");

/// Between two readings of everything, where others ask for what changed (`incoming[].poll.full`, `.sweep.full`). Once a
/// day, as a list of a large store takes hundreds of calls.
pub const FULL: Duration = Duration::from_secs(86_400);

/// Of a route's last commands so many percent may end as dead letters: more than any bad batch should, less than a
/// broken mapping does.
pub const STOP_AT_PERCENT: u8 = 50;
