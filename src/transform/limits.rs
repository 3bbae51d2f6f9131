//! What a run may use. The rewritten program calls in here at every step (see `rewrite`); once a limit is passed
//! every further call halts, which jq's `try` cannot catch. Memory is bounded by accounting: whatever a step makes
//! is weighed, so no value can be heavier than the input plus everything paid for.

use std::cell::Cell;

use jaq_core::Exn;
use jaq_json::Val;

use super::value;

/// Limits of one run. The defaults let a mapping of a large order (4 KB, 250 lines) run hundreds of times over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Steps, each a few hundred nanoseconds at most.
    pub steps: u64,
    /// Bytes of values made, dead ones included, on top of 32 times the input.
    pub bytes: u64,
    /// Bytes of native stack for calls inside calls. Threads of the runtime have 2 MiB.
    pub stack_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // 100,000 steps are below 250 ms even in a debug build; 32 MiB keep ten parallel runs inside a small container;
        // 384 KiB leave most of a 2 MiB stack to whoever calls and to what a step itself needs.
        Self { steps: 100_000, bytes: 32 << 20, stack_bytes: 384 << 10 }
    }
}

/// Nodes looked at that count as one step.
const NODES_PER_STEP: u64 = 16;
/// How many steps pass between two questions to the caller.
const STOP_EVERY: u64 = 256;
/// jaq frees chains of closures and of path elements recursively, one native frame a link: the chain must fit on
/// the stack. A test frees them on half of the stack that threads have.
const MAX_CHAIN: u64 = 2_000;

/// Why a run was halted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Halt {
    Steps,
    Bytes,
    Stack,
    Depth,
    Chain,
    Number,
    Regex,
    Caller,
}

impl Halt {
    pub(super) fn say(self) -> &'static str {
        match self {
            Halt::Steps => "mapping took too many steps",
            Halt::Bytes => "mapping needed too much memory",
            Halt::Stack => "mapping called itself too deeply",
            Halt::Depth => "mapping made a value nested too deeply",
            Halt::Chain => "mapping called itself or followed a path too many times",
            Halt::Number => "mapping made a number of too many digits",
            Halt::Regex => "mapping used a regular expression that is too large",
            Halt::Caller => "mapping was stopped at its deadline",
        }
    }
}

/// The counters of one run.
pub(super) struct Budget<'b> {
    steps: Cell<u64>,
    bytes: Cell<u64>,
    chain: Cell<u64>,
    next_question: Cell<u64>,
    halted: Cell<Option<Halt>>,
    base: usize,
    stack_bytes: usize,
    stop: &'b dyn Fn() -> bool,
}

type Step<'a> = Result<(), Exn<'a, Val>>;

impl<'b> Budget<'b> {
    pub(super) fn new(limits: &Limits, input_bytes: u64, stop: &'b dyn Fn() -> bool) -> Self {
        Self {
            steps: Cell::new(limits.steps),
            bytes: Cell::new(limits.bytes.saturating_add(input_bytes.saturating_mul(32))),
            chain: Cell::new(MAX_CHAIN),
            next_question: Cell::new(limits.steps.saturating_sub(STOP_EVERY)),
            halted: Cell::new(None),
            base: here(),
            stack_bytes: limits.stack_bytes,
            stop,
        }
    }

    pub(super) fn halted(&self) -> Option<Halt> {
        self.halted.get()
    }

    pub(super) fn halt<'a>(&self, why: Halt) -> Exn<'a, Val> {
        if self.halted.get().is_none() {
            self.halted.set(Some(why));
        }
        Exn::halt(1)
    }

    /// Pays for some steps, and looks at the stack.
    pub(super) fn step<'a>(&self, count: u64) -> Step<'a> {
        if let Some(why) = self.halted.get() {
            return Err(self.halt(why));
        }
        let left = self.steps.get();
        if left < count {
            return Err(self.halt(Halt::Steps));
        }
        self.steps.set(left - count);
        if here().abs_diff(self.base) > self.stack_bytes {
            return Err(self.halt(Halt::Stack));
        }
        if left - count < self.next_question.get() {
            self.next_question.set((left - count).saturating_sub(STOP_EVERY));
            if (self.stop)() {
                return Err(self.halt(Halt::Caller));
            }
        }
        Ok(())
    }

    /// Pays for one link of a chain.
    pub(super) fn link<'a>(&self) -> Step<'a> {
        let left = self.chain.get();
        if left == 0 {
            return Err(self.halt(Halt::Chain));
        }
        self.chain.set(left - 1);
        self.step(1)
    }

    /// Pays for looking at all of `v`, and gives its bytes.
    pub(super) fn weigh<'a>(&self, v: &Val) -> Result<u64, Exn<'a, Val>> {
        let steps = self.steps.get();
        let weight = value::weight(v, steps.saturating_mul(NODES_PER_STEP), self.bytes.get())
            .map_err(|why| self.halt(why))?;
        self.step(1 + weight.nodes / NODES_PER_STEP)?;
        Ok(weight.bytes)
    }

    /// Pays for `v` as something new.
    pub(super) fn made<'a>(&self, v: &Val) -> Step<'a> {
        let bytes = self.weigh(v)?;
        self.take(bytes)
    }

    /// Pays for bytes about to be made.
    pub(super) fn take<'a>(&self, bytes: u64) -> Step<'a> {
        let left = self.bytes.get();
        if left < bytes {
            return Err(self.halt(Halt::Bytes));
        }
        self.bytes.set(left - bytes);
        Ok(())
    }
}

/// Roughly where the stack ends now.
#[inline(never)]
fn here() -> usize {
    let marker = 0_u8;
    std::ptr::from_ref(&marker).addr()
}
