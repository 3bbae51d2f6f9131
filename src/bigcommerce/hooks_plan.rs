//! What is to be done so that a store's webhooks are the wanted ones. Pure.
//!
//! It compares hooks with subscriptions and says one thing about each. Whose a hook is, [`Wanted`] knows; hooks of
//! others are listed and never changed. No header's value is ever part of a plan.

use std::collections::BTreeSet;

use super::hooks_scopes::Subscription;
pub(super) use super::hooks_wanted::tidy;

pub use super::hooks_wanted::{Hook, MARKER, Owner, Wanted};

/// Hooks a store takes on one scope from one client (BigCommerce's webhook reference).
const MAX_PER_SCOPE: usize = 10;

/// What is wrong with a hook of ours.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It was deactivated: by BigCommerce after failed deliveries, or by hand.
    Reactivate,
    /// It delivers to where the bridge once was.
    CorrectDestination {
        /// The old place.
        from: String,
    },
    /// These headers differ, by name.
    CorrectHeaders {
        /// Their names.
        names: Vec<String>,
    },
    /// Nothing, but it was not touched for long, and BigCommerce switches off what seems unused.
    KeepAwake,
}

/// What is to be done about one scope, or about one hook that no scope asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It is as it should be.
    Keep {
        /// The hook.
        id: u64,
    },
    /// There is none yet.
    Create,
    /// There is one, but it is not as it should be.
    Update {
        /// The hook.
        id: u64,
        /// Why.
        changes: Vec<Change>,
    },
    /// Ours, but no longer wanted, or one of two. Left alone, except by `prune`.
    Unwanted {
        /// The hook.
        id: u64,
    },
    /// Somebody else's; left alone.
    Foreign {
        /// The hook.
        id: u64,
    },
    /// The scope has as many foreign hooks as it can take: ours cannot be made.
    Full,
}

impl Action {
    /// The stable name, for output.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Keep { .. } => "keep",
            Self::Create => "create",
            Self::Update { .. } => "update",
            Self::Unwanted { .. } => "unwanted",
            Self::Foreign { .. } => "foreign",
            Self::Full => "full",
        }
    }

    /// The hook that it is about, if there is one.
    pub const fn id(&self) -> Option<u64> {
        match self {
            Self::Keep { id } | Self::Update { id, .. } | Self::Unwanted { id } | Self::Foreign { id } => {
                Some(*id)
            }
            Self::Create | Self::Full => None,
        }
    }

    /// Whether applying the plan does something about it.
    pub const fn is_change(&self) -> bool {
        match self {
            Self::Create | Self::Update { .. } => true,
            Self::Keep { .. } | Self::Unwanted { .. } | Self::Foreign { .. } | Self::Full => false,
        }
    }
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The scope.
    pub scope: String,
    /// Where the hook delivers, now or once it is made.
    pub destination: String,
    /// What is to be done.
    pub action: Action,
}

/// What is to be done about one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Wanted scopes first, then hooks that nobody asked for; by scope.
    pub items: Vec<Item>,
}

impl Plan {
    /// Whether there is something to do.
    pub fn has_changes(&self) -> bool {
        self.items.iter().any(|item| item.action.is_change())
    }
}

/// Compares what is wanted, as hooks to have, with what there is.
pub fn plan(wanted: &Wanted, subscriptions: &[Subscription], hooks: &[Hook]) -> Plan {
    let mut taken = BTreeSet::new();
    let mut items = Vec::new();
    for Subscription { scope, .. } in subscriptions {
        let on_scope = || hooks.iter().filter(|hook| tidy(&hook.scope) == scope);
        let ours = on_scope().filter(|hook| wanted.is_ours(hook));
        // Of several the one at the right place is kept, an active one before an idle one, the oldest first.
        let best = ours.min_by_key(|hook| (!wanted.is_here(hook), !hook.is_active, hook.id));
        let action = match best {
            Some(hook) => {
                taken.insert(hook.id);
                correct(wanted, hook)
            }
            None if on_scope().count() >= MAX_PER_SCOPE => Action::Full,
            None => Action::Create,
        };
        items.push(Item { scope: scope.clone(), destination: wanted.destination_of(scope), action });
    }
    let mut others: Vec<_> = hooks.iter().filter(|hook| !taken.contains(&hook.id)).collect();
    others.sort_by(|a, b| (&a.scope, a.id).cmp(&(&b.scope, b.id)));
    for hook in others {
        let ours = wanted.is_ours(hook);
        let action = if ours { Action::Unwanted { id: hook.id } } else { Action::Foreign { id: hook.id } };
        items.push(Item { scope: hook.scope.clone(), destination: hook.destination.clone(), action });
    }
    Plan { items }
}

fn correct(wanted: &Wanted, hook: &Hook) -> Action {
    let mut changes = Vec::new();
    if !hook.is_active {
        changes.push(Change::Reactivate);
    }
    if !wanted.is_here(hook) {
        changes.push(Change::CorrectDestination { from: hook.destination.clone() });
    }
    let names = wanted.differing_headers(hook);
    if !names.is_empty() {
        changes.push(Change::CorrectHeaders { names });
    }
    if changes.is_empty() { Action::Keep { id: hook.id } } else { Action::Update { id: hook.id, changes } }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::super::hooks_wanted::tests::{HERE, hook, wanted};
    use super::*;

    const ORDER: &str = "store/order/*";

    fn of(hooks: &[Hook]) -> Plan {
        let wanted = wanted(&[ORDER]);
        plan(&wanted, &wanted.subscriptions(&[]), hooks)
    }

    fn actions(hooks: &[Hook]) -> Vec<Action> {
        of(hooks).items.into_iter().map(|item| item.action).collect()
    }

    #[test]
    fn a_missing_hook_is_created_and_a_right_one_kept() {
        assert_eq!(actions(&[]), [Action::Create]);
        assert_eq!(actions(&[hook(1, ORDER, HERE)]), [Action::Keep { id: 1 }]);
        let spelled = hook(1, "store/order/*/", "https://BRIDGE.example.com:443/in/webhooks/main");
        assert_eq!(actions(&[spelled]), [Action::Keep { id: 1 }]);
    }

    #[test]
    fn a_sleeping_hook_is_woken_and_changed_headers_are_named_without_values() {
        let mut asleep = hook(1, ORDER, HERE);
        asleep.is_active = false;
        assert_eq!(actions(&[asleep]), [Action::Update { id: 1, changes: vec![Change::Reactivate] }]);
        let mut old = hook(2, ORDER, HERE);
        old.headers.insert("x-bridge-key".to_owned(), SecretString::from("older"));
        old.headers.remove(MARKER);
        let names = vec![MARKER.to_owned(), "x-bridge-key".to_owned()];
        let found = actions(&[old]);
        assert_eq!(found, [Action::Update { id: 2, changes: vec![Change::CorrectHeaders { names }] }]);
        assert!(!format!("{found:?} {:?}", wanted(&[ORDER])).contains("hush"));
    }

    #[test]
    fn a_hook_of_ours_at_an_old_place_is_corrected_only_if_it_is_marked() {
        let old = "https://old.example.com/webhooks/main";
        let moved = vec![Change::CorrectDestination { from: old.to_owned() }];
        assert_eq!(actions(&[hook(1, ORDER, old)]), [Action::Update { id: 1, changes: moved }]);
        let mut unmarked = hook(1, ORDER, old);
        unmarked.headers.remove(MARKER);
        assert_eq!(actions(&[unmarked]), [Action::Create, Action::Foreign { id: 1 }]);
        let mut another = hook(1, ORDER, old);
        another.headers.insert(MARKER.to_owned(), SecretString::from("other"));
        assert_eq!(actions(&[another]), [Action::Create, Action::Foreign { id: 1 }]);
        let elsewhere = hook(1, ORDER, "https://old.example.com/other");
        assert_eq!(actions(&[elsewhere]), [Action::Create, Action::Foreign { id: 1 }]);
    }

    #[test]
    fn of_two_hooks_the_one_at_the_right_place_is_kept() {
        let old = hook(1, ORDER, "https://old.example.com/webhooks/main");
        let found = actions(&[old, hook(2, ORDER, HERE)]);
        assert_eq!(found, [Action::Keep { id: 2 }, Action::Unwanted { id: 1 }]);
    }

    #[test]
    fn hooks_on_scopes_that_nobody_asked_for_are_told_apart() {
        let foreign = hook(8, "store/cart/*", "https://erp.example.com/x");
        let found = actions(&[hook(1, ORDER, HERE), hook(7, "store/app/uninstalled", HERE), foreign]);
        assert_eq!(found, [Action::Keep { id: 1 }, Action::Unwanted { id: 7 }, Action::Foreign { id: 8 }]);
    }

    #[test]
    fn a_scope_that_is_full_of_foreign_hooks_is_reported() {
        let hooks: Vec<_> =
            (0..10).map(|n| hook(n + 1, ORDER, &format!("https://erp.example.com/{n}"))).collect();
        assert_eq!(actions(&hooks)[0], Action::Full);
        assert!(!of(&hooks).has_changes());
    }
}
