//! The shell of a mesh: TCP over tokio, and nothing decided.
//!
//! [`Transport`] owns the listener and all connections. Who talks to whom:
//!
//! ```text
//!  accept task ──┐ bounded                       ┌── execute(Output::Dial | Send | Close)
//!  dial tasks  ──┼──────────► Transport::next ───┤
//!  readers     ──┤            (TransportEvent)   └─► writers: a queue each, bounded in bytes
//!  writers     ──┘
//! ```
//!
//! Tasks wait for the control loop when it is busy (the reports are bounded, so TCP pushes back on the far
//! side); the control loop waits for nobody. Dropping the transport ends all tasks.

mod connection;
mod listener;
mod transport;

pub use transport::{Transport, TransportEvent};
