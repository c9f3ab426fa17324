//! Who is out there, and what do they say: the mesh of sessions, the topology and the gossip channels.
//!
//! [`Mesh`] is the machine: it owns the sessions with other routers, learns by gossip who is there and who is
//! linked with whom, computes [`Routes`] from that, carries the application's channels, and decides whom to
//! dial. It is pure: time, chance and bytes are arguments, and what it wants done comes out as [`Output`]. See
//! [`mesh`] for how to drive it. The shell that drives it over TCP is in [`io`] (feature `io`); the simulator
//! that drives many of them in one process is in `sim` (feature `sim`).

mod channel;
pub mod codec;
mod curve;
mod dialer;
mod event;
#[cfg(feature = "sim")]
pub mod fuzz;
mod hello;
mod identity;
mod liveness;
pub mod mesh;
mod noise;
mod peer;
mod routes;
mod session;
mod target;
mod topology;
mod wire;

#[cfg(feature = "io")]
pub mod io;
#[cfg(feature = "sim")]
pub mod sim;

pub use event::{ChannelName, ConnectionId, DeliverKind, Input, Output, UNREPORTED};
pub use identity::{Identity, Psk, Seed};
pub use mesh::{ConnectionState, ConnectionView, Counters, Mesh, MeshConfig, PeerView, Presence};
pub use peer::{BootId, Incarnation, PeerName, PeerNameError};
pub use routes::{Graph, Routes};
pub use target::{DEFAULT_PORT, Target, TargetError};
