//! bcbridge: the bridge between BigCommerce and Kafka. This page is the map.
//!
//! # Two paths, one machine
//!
//! *Incoming* (BigCommerce to Kafka): [`receiver`] verifies a callback and makes it durable as hints on the intake
//! topic; [`incoming`] gathers hints per entity, reads the entities with the fewest calls, and publishes them.
//! *Outgoing* (Kafka to BigCommerce): [`outgoing`] takes commands, applies them in order per key, and answers each.
//!
//! Both are a [`runtime::ports::Stage`] driven by the one loop in [`runtime::runner`]: records are taken in order, each gets
//! exactly one settlement, and settlements are committed with their offsets in Kafka transactions. The machines
//! inside ([`engine`]) and the nouns ([`model`]) are pure: they know no clock, no network and no environment.
//!
//! # What always holds
//!
//! - The event says "look", the read says "what": nothing is published that was not read after its hint was consumed.
//! - A 200 is answered only for what is durable. Offsets are committed only for what is settled.
//! - One read at a time for one entity; one command at a time for one key.
//! - No HTTP inside a Kafka transaction. After an unknown outcome, only the broker's committed offsets are believed.
//! - No DELETE of a collection, no empty id in a path, no request to another host, no redirect followed.
//! - Entities, scopes and actions are rows of the [`catalog`], never names in code.
//! - Every queue, cache, body, retry and loop has a bound; its constant says why.
//!
//! # Words
//!
//! *delivery*: a callback as it arrived. *hint*: "look at this entity again". *gathering*: the hints that one read will
//! answer. *row*: one entity as it was read. *verdict*: what a reply means. *settled*: records of a source topic that are done with, and what
//! comes of them. *checkpoint*: what is settled of a partition. *lane*: the commands of one key. *class* A, B, C: what a
//! second application would do. *outcome*: how a command ended. *reason*: why something was put aside.
//! *budget*: the calls that the store's rate limit leaves us.
//!
//! # What to read first
//!
//! [`runtime::ports`], then [`incoming::stage`] and [`runtime::runner`]; [`catalog::row`] with `src/catalog/products.toml`; [`app`]
//! for how it is all put together. The [`sandbox`] is a BigCommerce simulator that shares no type with the client.

pub mod app;
pub mod bigcommerce;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod console;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod engine;
pub mod incoming;
pub mod kafka;
pub mod model;
pub mod outgoing;
pub mod receiver;
pub mod runtime;
pub mod sandbox;
pub mod scheduler;
pub mod telemetry;
pub mod transform;
