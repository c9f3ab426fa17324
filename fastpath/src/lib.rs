//! What must the kernel look like: bridge, ports and container links as desired, actual, plan, apply.
//!
//! The kernel is not commanded but *converged*. [`Desired`] says what the router wants, [`Actual`] what stands,
//! in the same words; [`plan()`] is the pure, printable, minimal way from one to the other; [`Fastpath`] looks and
//! applies, over netlink and without child processes. What others delete comes back; what is right is adopted and
//! not touched; what is not ours is never touched.
//!
//! ```text
//! mac names link                     words: addresses, names and marks, one interface
//! desired actual change plan         pure: the wish, the picture, one step, the way
//! vxlan                              the kernel's own carrier: devices, remotes, forwarding entries
//! support error container            what a host can do; what went wrong; what an attachment asks
//! filter                             who may speak VXLAN to us: the same four words for one nftables table
//! policy                             masquerade, port lock and FORWARD: what containers need, what they may not
//! table                              nftables in our words: a table as wanted and as found, and the way between
//! io                                 netlink, ioctl and /proc/sys: look, apply, attach, watch
//! ```

pub mod actual;
pub mod change;
pub mod container;
pub mod desired;
pub mod error;
pub mod filter;
mod io;
pub mod link;
pub mod mac;
pub mod names;
pub mod plan;
pub mod policy;
pub mod support;
pub mod table;
pub mod vxlan;

pub use actual::Actual;
pub use change::Change;
pub use container::{Attached, ContainerLink, DefaultRoute, StandingLink};
pub use desired::{ContainerPort, Desired, Sleeve};
pub use error::Error;
pub use filter::{Filter, FilterChange, FilterState, plan_filter};
pub use io::{Fastpath, HostRoute, Monitor, PolicyReport, Port, Probe, ProbeSocket, Report, Teardown};
pub use mac::MacAddr;
pub use names::{BridgeName, PortId};
pub use plan::{missing, obstacles, plan, plan_entries};
pub use policy::{Lock, Masquerade, Policy, PolicyChange, PolicyState, plan_policy};
pub use support::{Facts, Release};
pub use vxlan::{Remote, RemoteId, Underlay, Vxlan};
