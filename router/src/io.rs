//! The operating system: sockets, capture, netlink, files, clocks. A shell without decisions.
//!
//! Everything that waits or can fail for a reason outside the program is below this point; the machines
//! above it are pure. The control half's shells run on the daemon's current-thread runtime, the data half's on
//! a thread of its own.

pub mod attach;
pub mod bridge;
pub mod call;
pub mod capture;
pub mod clock;
pub mod dataplane;
mod directory;
pub mod host;
pub mod http;
pub mod journal;
pub mod kernel;
mod notes;
pub mod pcap;
pub mod probe;
pub mod signals;
pub mod socket;
pub mod store;
#[expect(unsafe_code, reason = "socket options and mapped structures; nothing else in this crate is unsafe")]
mod sys;
#[cfg(test)]
pub(crate) mod testing;
pub mod udp;
pub mod vnet;
