//! Whether a store may be called at all, and with which token.
//!
//! A token that the store refuses again and again, or whose app was uninstalled, is of no use, and calling all the
//! same would only count against everybody. So the store is *stopped*: every request is answered `Unauthorized`
//! from here, without network, until a probe finds that the token works again or another token is put in force.
//! It never starts a store by itself, never prints a token, and cannot fail.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tokio::time::Instant;

/// Refusals of the token in succession, with no other answer between, after which a store is stopped: one may be a
/// hiccup of the platform.
const REFUSALS: u32 = 3;

/// The first probe of a stopped store: soon, since a refusal may have been the platform's, and the news of an
/// uninstalled app may be older than the token.
pub const FIRST_PROBE: Duration = Duration::from_secs(30);

/// The time between two probes doubles up to this: six calls an hour cost nobody anything.
pub const LAST_PROBE: Duration = Duration::from_secs(600);

/// Why a store is not called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// Its API refused the token, several times in succession.
    Unauthorized,
    /// Its app was uninstalled; the token ends with it.
    Uninstalled,
}

impl StopReason {
    /// A stable word for reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Uninstalled => "uninstalled",
        }
    }

    /// What a person has to do.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Unauthorized => {
                "its access token is refused: put a valid one into access_token and reload the settings"
            }
            Self::Uninstalled => {
                "its app was uninstalled: install it again, put the new access_token into the settings and reload \
                 them, or remove the store"
            }
        }
    }
}

/// Whether a store is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreState {
    /// It is.
    Running,
    /// It is left alone.
    Stopped {
        /// Why.
        reason: StopReason,
        /// Since when.
        since: Instant,
    },
}

impl StoreState {
    /// Whether it is left alone.
    pub const fn is_stopped(&self) -> bool {
        matches!(self, Self::Stopped { .. })
    }
}

/// A token as a header, and which of those that were in force it is.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) header: HeaderValue,
    number: u64,
}

/// The access to one store.
#[derive(Debug)]
pub(super) struct Access {
    token: ArcSwap<Token>,
    /// Refusals of the present token in succession. Held while the state or the token changes, so that a late answer
    /// to an earlier token stops nothing.
    refusals: Mutex<u32>,
    state: watch::Sender<StoreState>,
}

impl Access {
    /// Access with `token`; none where it cannot stand in a header.
    pub(super) fn new(token: &SecretString) -> Option<Self> {
        let token = Token { header: header(token)?, number: 0 };
        Some(Self {
            token: ArcSwap::from_pointee(token),
            refusals: Mutex::new(0),
            state: watch::Sender::new(StoreState::Running),
        })
    }

    /// The token in force.
    pub(super) fn token(&self) -> Arc<Token> {
        self.token.load_full()
    }

    pub(super) fn state(&self) -> StoreState {
        *self.state.borrow()
    }

    pub(super) fn states(&self) -> watch::Receiver<StoreState> {
        self.state.subscribe()
    }

    /// Puts another token in force, and starts the store; false where it cannot stand in a header.
    pub(super) fn replace(&self, token: &SecretString) -> bool {
        let Some(header) = header(token) else { return false };
        self.with(|refusals| {
            let number = self.token.load().number + 1;
            self.token.store(Arc::new(Token { header, number }));
            *refusals = 0;
            self.state.send_replace(StoreState::Running);
        });
        true
    }

    /// Leaves the store alone from now on; the first reason stays.
    pub(super) fn stop(&self, reason: StopReason) {
        self.state.send_if_modified(|state| {
            let runs = !state.is_stopped();
            if runs {
                *state = StoreState::Stopped { reason, since: Instant::now() };
            }
            runs
        });
    }

    /// A probe found that the token works.
    pub(super) fn start(&self) {
        self.with(|refusals| {
            *refusals = 0;
            self.state.send_if_modified(|state| std::mem::replace(state, StoreState::Running).is_stopped());
        });
    }

    /// Draws the consequence of an answer to a request that was sent with `token`.
    pub(super) fn answered(&self, token: &Token, status: u16) {
        match status {
            401 => self.with(|refusals| {
                if self.token.load().number == token.number {
                    *refusals += 1;
                    if *refusals >= REFUSALS {
                        self.stop(StopReason::Unauthorized);
                    }
                }
            }),
            // Whoever is let in, forbidden something, or told that nothing is there had a valid token.
            200..=299 | 403 | 404 => self.with(|refusals| *refusals = 0),
            _ => {}
        }
    }

    fn with(&self, act: impl FnOnce(&mut u32)) {
        // A count is whole after any panic.
        act(&mut self.refusals.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn header(token: &SecretString) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(token.expose_secret()).ok().filter(|value| !value.is_empty())?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        Access::new(&"first".into()).unwrap()
    }

    fn reason(access: &Access) -> Option<StopReason> {
        match access.state() {
            StoreState::Running => None,
            StoreState::Stopped { reason, .. } => Some(reason),
        }
    }

    #[test]
    fn three_refusals_in_succession_stop_a_store_and_any_other_answer_between_them_does_not() {
        let (access, token) = (access(), access().token());
        for status in [401, 401, 200, 401, 401, 404, 401, 401] {
            access.answered(&token, status);
            assert_eq!(reason(&access), None);
        }
        // A failure says nothing of the token.
        access.answered(&token, 500);
        access.answered(&token, 401);
        assert_eq!(reason(&access), Some(StopReason::Unauthorized));
        access.start();
        assert_eq!(reason(&access), None);
    }

    #[test]
    fn late_answers_to_an_earlier_token_stop_nothing() {
        let access = access();
        let earlier = access.token();
        access.stop(StopReason::Uninstalled);
        access.stop(StopReason::Unauthorized);
        assert_eq!(reason(&access), Some(StopReason::Uninstalled), "the first reason stays");
        assert!(access.replace(&"second".into()));
        assert_eq!(reason(&access), None);
        (0..9).for_each(|_| access.answered(&earlier, 401));
        assert_eq!(reason(&access), None);
        assert_eq!(access.token().header, "second");
    }

    #[test]
    fn a_token_that_no_header_can_carry_changes_nothing() {
        let access = access();
        for bad in ["", "a\nb"] {
            assert!(Access::new(&bad.into()).is_none());
            assert!(!access.replace(&bad.into()));
        }
        assert_eq!(access.token().header, "first");
        assert!(!format!("{access:?}").contains("first"), "a token is never printed");
    }
}
