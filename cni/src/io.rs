//! The only place that touches the operating system: environment, standard streams, namespaces, notes, plugins.

mod delegate;
pub(crate) mod environment;
pub(crate) mod fault;
pub(crate) mod host;
mod inside;
mod notes;
pub(crate) mod stdio;
