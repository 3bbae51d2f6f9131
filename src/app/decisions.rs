//! Keeps this process informed of what people decide about commands that stand still.
//!
//! The signals topic is read from its beginning by every process that applies commands, since any may own the
//! partition in question, now or after the next rebalance. Nothing is written. A topic that cannot be read is tried
//! again for as long as the process lives; keys that are halted stay so meanwhile.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::kafka::backlog::end_of;
use crate::kafka::settings::ClientSettings;
use crate::kafka::tail::Tail;
use crate::model::record::InRecord;
use crate::model::signal::{Ask, Halted, Signal};
use crate::outgoing::{About, Decision, Decisions};
use crate::runtime::{Drain, Lifecycle};

/// Between two tries to read the signals.
const PAUSE: Duration = Duration::from_secs(5);

/// After so long without a record there is none left of those that stood there at the start: the last may have been
/// deleted, or be no records.
const QUIET: Duration = Duration::from_secs(5);

/// What people decide, followed until the drain.
pub(super) fn start(client: &ClientSettings, topic: Arc<str>, lifecycle: &mut Lifecycle) -> Decisions {
    let (decisions, client) = (Decisions::default(), client.clone());
    let followed = decisions.clone();
    lifecycle.start("decisions", |drain| async move {
        follow(&client, &topic, &followed, &drain).await;
        Ok::<(), Infallible>(())
    });
    decisions
}

async fn follow(client: &ClientSettings, topic: &Arc<str>, decisions: &Decisions, drain: &Drain) {
    while !drain.is_requested() {
        let read = async {
            decisions.begin(end_of(client, topic, 0).await?);
            let mut tail = Tail::from_start(client, vec![topic.to_string()]).await?;
            while decisions.is_behind() {
                match tokio::time::timeout(QUIET, tail.next()).await {
                    Ok(record) => take(decisions, &record?),
                    Err(_) => decisions.caught_up(),
                }
            }
            loop {
                take(decisions, &tail.next().await?);
            }
        };
        let failed: Result<Infallible, crate::kafka::settings::ClientError> = tokio::select! {
            () = drain.requested() => return,
            failed = read => failed,
        };
        let Err(error) = failed;
        warn!(kafka.topic = %topic, %error, "signals cannot be read; what people decide is not seen");
        if tokio::time::timeout(PAUSE, drain.requested()).await.is_ok() {
            return;
        }
    }
}

/// Takes a signal. Those of other kinds, and wrong ones, are the leader's to answer.
fn take(decisions: &Decisions, record: &InRecord) {
    let place = record.position.offset;
    note(decisions, record);
    decisions.reach(place);
}

fn note(decisions: &Decisions, record: &InRecord) {
    let Ok(Signal { id, ask }) = Signal::parse(record.value.as_deref().unwrap_or_default()) else { return };
    let Ask::EndHalt { store, halted, drop_before } = ask else { return };
    let about = match halted {
        Halted::Key { command } => About::Command(command),
        Halted::Route { topic } => About::Route(topic),
    };
    info!(signal = id, store, "a decision about commands that stand still");
    let (place, at_ms) = (record.position.offset, record.timestamp_ms.unwrap_or_default());
    decisions.take(&store, about, Decision { place, at_ms, drop_before });
}
