//! Who may send for the assigned partitions: the lease of the assignment, and the notes that the ledger holds.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;

use crate::engine::ownership::{Note, Tenure};
use crate::model::record::Partition;
use crate::runtime::lease::{Lease, RENEWAL};

/// What one assignment knows of its partitions that must be handed over; empty where none must.
pub(super) struct Ownership {
    lease: Lease,
    /// When the lease should be renewed.
    renew_at: Instant,
    tenures: BTreeMap<Partition, Tenure>,
    /// This assignment, in its notes, and how many it made.
    id: String,
    notes: u64,
}

impl Ownership {
    pub(super) fn new(now: Instant) -> Self {
        let id = uuid::Uuid::new_v4().to_string();
        Self { lease: Lease::new(now), renew_at: now, tenures: BTreeMap::new(), id, notes: 0 }
    }

    /// The lease of this assignment.
    pub(super) fn lease(&self) -> Lease {
        self.lease.clone()
    }

    /// A partition was assigned whose ledger holds this note.
    pub(super) fn assign(&mut self, partition: Partition, found: Option<Note>, now: Instant, wall_ms: i64) {
        self.tenures.insert(partition, Tenure::begin(found, now, wall_ms));
    }

    /// Whether there is anything to be handed over.
    pub(super) fn is_none(&self) -> bool {
        self.tenures.is_empty()
    }

    /// The consumer was asked at `now` and told of no revocation.
    pub(super) fn renew(&mut self, now: Instant) {
        self.lease.renew(now);
        self.renew_at = now + RENEWAL;
    }

    /// Nothing more is sent; what is on its way goes on.
    pub(super) fn stop(&self) {
        self.lease.end();
    }

    /// The notes to be made durable now, for work to begin or to go on. `has_work` tells of a partition whether
    /// anything waits in it.
    pub(super) fn due(&self, has_work: impl Fn(&Partition) -> bool, now: Instant) -> Vec<(Partition, Note)> {
        let due = |(partition, tenure): (&Partition, &Tenure)| {
            Some((partition.clone(), tenure.due(has_work(partition), now)?))
        };
        let due: Vec<_> = self.tenures.iter().filter_map(due).collect();
        if !due.is_empty() || !self.lease.is_over(now) {
            return due;
        }
        // The process was held up for so long that only a transaction can tell whether it is still a member.
        let open = self.tenures.iter().filter(|(_, tenure)| tenure.is_open());
        open.map(|(partition, _)| (partition.clone(), Note::Open)).collect()
    }

    /// The notes that hand over whatever was begun.
    pub(super) fn farewells(&self) -> Vec<(Partition, Note)> {
        let farewell =
            |(partition, tenure): (&Partition, &Tenure)| Some((partition.clone(), tenure.farewell()?));
        self.tenures.iter().filter_map(farewell).collect()
    }

    /// The ledger's value of a note; each is another one.
    pub(super) fn value(&mut self, note: Note) -> Bytes {
        self.notes += 1;
        note.value(&self.id, self.notes).into()
    }

    /// A note is durable; whether work on the partition may begin now that did not before.
    pub(super) fn noted(&mut self, partition: &Partition, note: Note) -> bool {
        let Some(tenure) = self.tenures.get_mut(partition) else { return false };
        let was_open = tenure.is_open();
        tenure.noted(note);
        tenure.is_open() && !was_open
    }

    /// A transaction that was begun at this moment proved the membership.
    pub(super) fn prove(&mut self, begun: Instant) {
        self.lease.prove(begun);
        self.renew_at = begun + RENEWAL;
    }

    /// When to look again, if nothing else happens.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let renewal = self.tenures.values().any(Tenure::is_open).then_some(self.renew_at);
        let waits = self.tenures.values().filter_map(Tenure::waits_until).filter(|until| *until > now);
        renewal.into_iter().chain(waits).min()
    }
}
