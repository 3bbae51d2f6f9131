//! The only code that speaks REST.
//!
//! A [`StoreClient`] sends requests to one store, within its rate budget, to one origin and nowhere else. It
//! never follows a redirect, never retries what may have been applied, never sends a delete without explicit
//! ids, and never fails: whatever happens becomes a [`Reply`](crate::model::request::Reply).

mod access;
mod address;
mod admission;
mod body;
mod caps;
mod classify;
mod client;
mod guard;
mod headers;
pub mod hooks;
mod hooks_admin;
pub mod hooks_plan;
pub mod hooks_scopes;
mod hooks_wanted;
pub mod hooks_watch;

pub use access::{FIRST_PROBE, LAST_PROBE, StopReason, StoreState};
pub use client::{ClientConfig, ClientError, OnReply, Seen, StoreClient, Timeouts};
