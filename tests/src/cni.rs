//! The network half of a container runtime: what containerd does with a list of CNI plugins, where a test can look at
//! every step.
//!
//! ```text
//!   Conflist ──derive──▶ one document per plugin ──stdin──▶ Call ──▶ Answer ──▶ result, or a typed Failure
//!                 ▲ name, cniVersion, prevResult, runtimeConfig, valid attachments
//! ```
//!
//! [`Runtime`] runs whole lists: ADD forwards, each plugin fed with the result of the one before; DEL backwards with the
//! result that was kept. [`Call`] is one process with any environment and any input, for what a good runtime never does.
//! Every process has a deadline and its whole life is measured. The rules are those of the CNI specification 1.1.0.

mod answer;
mod attachment;
mod call;
mod conflist;
mod ours;
mod runtime;
mod schema;

pub use answer::{Answer, Failure};
pub use attachment::Attachment;
pub use call::{Call, Running, Verb};
pub use conflist::Conflist;
pub use ours::{Holdings, binary, faulty_binary, link, network, network_with, plugins, runtime, serving};
pub use runtime::{Added, Runtime};
pub use schema::{VERSIONS, addresses, conforms};
