//! Writes that take effect after their connection was cut: what a caller that timed out must reckon with.
//!
//! The caller sees a broken connection at once; the store changes some seconds later, perhaps after the caller has looked
//! and found nothing. Pending ones are counted, so that a test can wait for them, and bounded: beyond the bound the
//! write is lost, as if the connection had been cut before it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::core::Core;
use super::perform::{self, Asked, Way};

/// Writes that may await their effect at a time.
const PENDING_MAX: usize = 10_000;

/// The writes that await their effect.
#[derive(Debug)]
pub(crate) struct Late(watch::Sender<usize>);

impl Default for Late {
    fn default() -> Self {
        Late(watch::Sender::new(0))
    }
}

impl Late {
    /// Waits until none is left.
    pub(crate) async fn idle(&self) {
        let mut pending = self.0.subscribe();
        let _never_closes = pending.wait_for(|count| *count == 0).await;
    }

    fn enter(&self) -> bool {
        self.0.send_if_modified(|count| {
            let room = *count < PENDING_MAX;
            *count += usize::from(room);
            room
        })
    }

    fn leave(&self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Does what `asked` wants once `wait` has passed, unless the sandbox stops before.
pub(crate) fn commit(core: &Arc<Core>, asked: Asked, wait: Duration) {
    if !core.late.enter() {
        return;
    }
    let core = Arc::clone(core);
    crate::runtime::spawn("sandbox-late-commit", async move {
        let waited = core.stop.run_until_cancelled(tokio::time::sleep(wait)).await;
        if waited.is_some() {
            let _nobody_is_there_to_hear_it = perform::perform(&core, &asked, Way::LATE);
        }
        core.late.leave();
    });
}
