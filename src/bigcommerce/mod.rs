//! The only code that speaks REST.
//!
//! A [`StoreClient`] sends requests to one store, within its rate budget, to one origin and nowhere else. It
//! never follows a redirect, never retries what may have been applied, never sends a delete without explicit
//! ids, and never fails: whatever happens becomes a [`Reply`](crate::model::request::Reply).

mod address;
mod admission;
mod body;
mod caps;
mod classify;
mod client;
mod guard;
mod headers;
pub mod hooks;
pub mod hooks_plan;

pub use client::{ClientConfig, ClientError, OnReply, Seen, StoreClient, Timeouts};

pub use crate::model::envelope as paging;
