//! Callbacks in: verify, append, answer.
//!
//! `POST /webhooks/<store>` takes what BigCommerce sends. The order never changes: the whole body is read, verified
//! over its raw bytes, made durable through [`Intake`], and only then answered 200, with an empty body. What is not
//! authentic is answered 401 and touches nothing; what is authentic is never refused for its content.
//!
//! It knows neither Kafka nor the spool, shares no lock or queue with what happens to a callback later, and
//! believes nothing that is not signed: no `X-Forwarded-*`, no length, no route. Many connections, slow ones, and
//! malformed ones each meet a bound ([`Limits`], [`Deadlines`]).
//!
//! | file | what |
//! |---|---|
//! | `verify` | pure: the signature scheme |
//! | `head` | pure: which request heads are plain enough |
//! | `guard` | the socket: judged heads, in time |
//! | `store` | which stores there are, and whose a callback is |
//! | `seen` | ids that are durable already |
//! | `service` | one request |
//! | `server` | the port, the connections, the stop |

mod guard;
pub mod head;
mod intake;
mod metrics;
mod peers;
mod seen;
mod server;
mod service;
mod settings;
mod store;
pub mod verify;

pub use intake::{Delivery, Intake, NotDurable};
pub use metrics::{Outcome, ReceiverMetrics};
pub use server::{BindError, Receiver};
pub use service::{NowMs, ROUTE_PREFIX};
pub use settings::{BadPeerNet, Deadlines, Limits, PeerNet, ReceiverConfig, StoreAuth};
pub use store::{Examination, StoreFault, Stores, examine};
pub use verify::SignaturePolicy;

impl<T: Intake> Intake for std::sync::Arc<T> {
    fn append(&self, delivery: Delivery) -> impl Future<Output = Result<(), NotDurable>> + Send {
        T::append(self, delivery)
    }
}
