//! Who owns which address, and which container gets one: no store, no leader, and never one address twice.
//!
//! Every peer keeps the same [`ring`]: for each address of the range who owns it and since which epoch. An
//! owner gives addresses out to containers of its own host from its [`space`], and gives whole blocks away
//! to peers that ask. Nobody else may, so both sides of a partition go on safely with what they own.
//!
//! | room | answers |
//! |---|---|
//! | [`contract`] | what the machine is told and what it wants done, on one screen |
//! | [`allocator`] | the machine |
//! | [`ring`] | who owns an address; merges in any order come to the same |
//! | [`cluster`] | which ring stays when two meet; seats of a seed list |
//! | [`consensus`] | who divides the range at first |
//! | [`space`], `leases` | what is idle here, and who uses the rest |
//! | `pending` | what waits, for whom, until when |
//! | [`wire`] | messages and the snapshot |
//! | [`address`] | spans that cannot overflow |
//!
//! Durable before visible: `Output::Persist` always comes before the message or the answer that depends
//! on it. Time and chance are arguments.

pub mod address;
pub mod allocator;
pub mod cluster;
pub mod consensus;
pub mod contract;
mod leases;
mod pending;
pub mod ring;
pub mod space;
#[cfg(test)]
mod tests;
pub mod wire;

pub use allocator::Allocator;
pub use contract::{
    AllocatorConfig, Command, Holder, InitMode, IpamError, IpamState, IpamStatus, Output, PeerKnowledge,
    Reply, RequestId,
};
pub use wire::Snapshot;
