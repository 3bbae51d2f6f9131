//! From a lane to the store and back: commands wait for their turn, leave alone or together, and are told what came of it.
//!
//! An intent is made durable right before its request is sent, and not while a command waits: a crash leaves only those
//! in doubt that were about to be sent. What was sent together waits together after a refusal of its rate, so that it
//! comes back as one request and not as many.

use std::sync::Arc;
use std::time::Instant;

use super::batch::{self, Came, Joint, Member, Part, Said, Verdict};
use super::{LaneKey, Line, Outgoing, What};
use crate::model::record::OutRecord;
use crate::model::request::{Answer, Request};
use crate::runtime::lease::Lease;
use crate::runtime::ports::{Append, Settled, Store};

/// How often a command may share a request that comes to nothing certain before it shares one half as large: once or
/// twice that is the store's fault, later it may be that of one of the items.
const MAX_DOUBTS: u32 = 2;

/// What earlier requests that a command shared came to.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Items in the next one, at most.
    most: Option<usize>,
    /// How many of them were doubtful.
    doubts: u32,
}

/// A request that has ended.
#[derive(Debug)]
pub(super) struct Sent {
    number: u64,
    /// One for each of its commands, in their order; none where their intents were not durable and nothing was sent.
    verdicts: Option<Vec<Verdict>>,
    /// What it says of the size of the next one.
    came: Came,
}

impl<S> Line<S> {
    /// When something is to be sent, if nothing else happens before.
    pub(super) fn sends_at(&self, now: Option<Instant>) -> Option<Instant> {
        let ready = now.filter(|_| self.outbox.is_ready());
        let at = ready.or_else(|| self.outbox.wake_at())?;
        Some(self.paused_until.map_or(at, |until| at.max(until)))
    }
}

impl<S: Store, A: Append> Outgoing<S, A> {
    /// Lets a lane's first command wait for its turn to be sent. It gives its slot away.
    pub(super) fn offer(
        &mut self,
        line: usize,
        lane: LaneKey,
        (request, part): (Request, Option<Part>),
        now: Instant,
    ) {
        let line = &mut self.lines[line];
        let Some(item) = line.lanes.head_mut(&lane) else { return };
        let most = item.shared.most;
        line.lanes.park(&lane);
        line.outbox.offer(Member { lane, request, part, most }, now);
    }

    /// Sends what is to go now.
    pub(super) fn dispatch(&mut self, line: usize, now: Instant) {
        if self.lines[line].paused_until.is_some_and(|until| until > now) {
            return;
        }
        while let Some(joint) = self.lines[line].outbox.next(now) {
            if self.take_back(line, joint.number, now) {
                continue;
            }
            let intents = self.intents(line, joint.number);
            let (client, appender) = (self.lines[line].client.clone(), self.appender.clone());
            let lease = self.lease.clone();
            let sent = async move { send((&*client, lease), &appender, intents, joint).await };
            self.push_job(line, async move { What::Sent(sent.await) });
        }
    }

    /// The intents that a request's commands still need.
    fn intents(&mut self, line: usize, number: u64) -> Vec<OutRecord> {
        let now_ms = (self.clock)();
        let Line { lanes, outbox, .. } = &mut self.lines[line];
        let intent = |lane: &LaneKey| {
            let item = lanes.head_mut(lane)?;
            let applying = item.applying.as_ref().filter(|applying| applying.needs_intent())?;
            let (topics, class) = (&item.route.topics, applying.class().name());
            Some(topics.intent(&item.record, &item.command.id, class, now_ms))
        };
        outbox.lanes_of(number).filter_map(intent).collect()
    }

    /// Tells each command of a request what came of it.
    pub(super) fn on_sent(&mut self, line: usize, sent: Sent, now: Instant) -> Vec<Settled> {
        let outbox = &mut self.lines[line].outbox;
        let members = outbox.ended(sent.number, sent.came, now);
        let size = Size { commands: members.len(), items: members.iter().filter_map(Member::items).sum() };
        // One draw for all of them: they come back together.
        let draw = rand::random();
        let lanes = members.into_iter().map(|member| member.lane);
        let Some(verdicts) = sent.verdicts else {
            return lanes.flat_map(|lane| self.not_sent(line, lane, now, draw)).collect();
        };
        let told = lanes.zip(verdicts);
        told.flat_map(|(lane, verdict)| self.told(line, lane, verdict, (size, now, draw))).collect()
    }

    fn not_sent(&mut self, line: usize, lane: LaneKey, now: Instant, draw: f64) -> Vec<Settled> {
        let item = self.lines[line].lanes.head_mut(&lane);
        let Some(applying) = item.and_then(|item| item.applying.as_mut()) else { return Vec::new() };
        let step = applying.on_no_intent(now, draw);
        self.proceed(line, lane, step, now)
    }

    fn told(
        &mut self,
        line: usize,
        lane: LaneKey,
        verdict: Verdict,
        (size, now, draw): (Size, Instant, f64),
    ) -> Vec<Settled> {
        let Some(item) = self.lines[line].lanes.head_mut(&lane) else { return Vec::new() };
        let Some(applying) = item.applying.as_mut() else { return Vec::new() };
        let is_shared = size.commands > 1;
        if is_shared {
            item.shared.most = verdict.most;
        }
        let step = match verdict.said {
            Said::Again => applying.step(),
            Said::Reply(reply) if is_shared => {
                if reply.answer == Answer::Doubtful {
                    item.shared.doubt(size.items);
                }
                applying.on_shared_reply(reply, now, draw)
            }
            Said::Reply(reply) => applying.on_reply(reply, now, draw),
        };
        self.proceed(line, lane, step, now)
    }
}

/// How much was in a request.
#[derive(Debug, Clone, Copy)]
struct Size {
    commands: usize,
    items: usize,
}

impl Shared {
    /// A request of so many items came to nothing certain.
    fn doubt(&mut self, items: usize) {
        self.doubts += 1;
        if self.doubts > MAX_DOUBTS {
            let half = items.div_ceil(2);
            self.most = Some(self.most.map_or(half, |most| most.min(half)));
        }
    }
}

/// Makes the intents durable, sends, and reads the reply.
async fn send<S: Store, A: Append>(
    (client, lease): (&S, Lease),
    appender: &Arc<A>,
    intents: Vec<OutRecord>,
    joint: Joint,
) -> Sent {
    let Joint { number, request, parts, most } = joint;
    if !intents.is_empty()
        && let Err(error) = appender.append(intents).await
    {
        tracing::warn!(%error, "intents could not be made durable; their commands wait");
        return Sent { number, verdicts: None, came: Came::Nothing };
    }
    let reply = client.send_while(request, lease).await;
    let verdicts = match parts.is_empty() {
        true => vec![Verdict { said: Said::Reply(reply.clone()), most }],
        false => batch::read(&parts, most, &reply),
    };
    Sent { number, came: batch::came(&reply, &verdicts), verdicts: Some(verdicts) }
}
