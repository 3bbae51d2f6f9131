//! Process-wide work over all stores (hook upkeep, and whatever else a leader does) that follows reloads.
//!
//! The work is written as if settings never changed: it is given what is in force, and drains when that is replaced;
//! then it begins anew with what is in force now.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::watch;

use super::load::InForce;
use crate::runtime::Drain;

/// Runs `work` until the drain, anew after each reload. It ends when the work does by itself.
pub(super) async fn follow<F, Fut>(mut stores: watch::Receiver<Arc<InForce>>, drain: Drain, work: F)
where
    F: Fn(Arc<InForce>, Drain) -> Fut,
    Fut: Future<Output = ()>,
{
    loop {
        let in_force = stores.borrow_and_update().clone();
        let (trigger, replaced) = Drain::switch();
        let mut running = pin!(work(in_force, replaced));
        let goes_on = tokio::select! {
            () = &mut running => return,
            () = drain.requested() => false,
            changed = stores.changed() => changed.is_ok(),
        };
        trigger.request();
        running.await;
        if !goes_on {
            return;
        }
    }
}
