//! Polls, snapshots and sweeps: rows of lists that lag behind the single reads, as hints that come late and in any
//! order, some without their rows.

use std::time::Duration;

use bytes::Bytes;

use super::broker::INTAKE;
use super::load::Load;
use super::store::Kind;
use crate::model::hint::{Cause, Hint, Op, Trigger};
use crate::model::ids::{EntityId, EntityKey};
use crate::model::record::OutRecord;

/// A list shows the store as it was up to so many milliseconds ago.
const LAG_MS: u64 = 8_000;

/// Lists all of one kind, again and again.
pub(super) struct Lister {
    pub(super) load: Load,
    /// Between two lists, in milliseconds.
    pub(super) pause_ms: u64,
}

impl Lister {
    pub(super) async fn run(&self, lasts: Duration) {
        let end = tokio::time::Instant::now() + lasts;
        let world = &self.load.world;
        let mut number = 0;
        while tokio::time::Instant::now() < end {
            world.pause(0..self.pause_ms * 2).await;
            let kind = if world.chance(0.5) { Kind::Product } else { Kind::Stock };
            let causes = [Cause::Poll, Cause::Snapshot, Cause::Sweep, Cause::Sync];
            let cause = causes[world.draw(0..4) as usize];
            self.list(kind, cause, &mut number);
        }
    }

    /// One list, of which each row goes its own way to the intake.
    fn list(&self, kind: Kind, cause: Cause, number: &mut u64) {
        let world = &self.load.world;
        let (began_ms, lag) = (world.now_ms(), world.draw(0..LAG_MS) as i64);
        world.saw("listed");
        // The reply, and each hint, may take its time.
        let late = if world.chance(0.3) { 15_000 } else { 1_000 };
        let ids: Vec<u64> = self.load.truth.lock().unwrap().all(kind).into_keys().collect();
        for id in ids {
            let truth = self.load.truth.lock().unwrap();
            let row = truth.listed(kind, id, began_ms - lag).filter(|_| !world.chance(0.1));
            let hinted = if kind == Kind::Stock { truth.parent(id) } else { id };
            let key = format!("{}/{hinted}", if kind == Kind::Stock { "inventory_item" } else { "product" });
            let named = (kind == Kind::Stock).then(|| EntityId::parse(&id.to_string()).unwrap());
            drop(truth);
            *number += 1;
            let hint = Hint {
                trigger: Trigger {
                    key: EntityKey::parse(&key).unwrap(),
                    op: Op::Read,
                    scope: cause.scope().unwrap().to_owned(),
                    row: named,
                },
                event: format!("listed-{number}"),
                created_at: None,
                received_ms: began_ms,
                traceparent: None,
                carried_ms: row.is_some().then_some(began_ms),
            };
            let value = row.map_or_else(|| Bytes::from_static(b"{}"), |row| Bytes::from(row.to_string()));
            let record = OutRecord {
                topic: INTAKE.into(),
                partition: None,
                key: Some(Bytes::from(key)),
                value: Some(value),
                headers: hint.headers(),
                timestamp_ms: Some(began_ms),
            };
            let (wait, broker) = (Duration::from_millis(world.draw(1..late)), self.load.broker.clone());
            if wait > Duration::from_secs(10) {
                world.saw("listed late");
            }
            crate::runtime::spawn("listed row", async move {
                tokio::time::sleep(wait).await;
                broker.append(record);
            });
        }
    }
}
