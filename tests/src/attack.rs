//! What a stranger on the underlay throws at a router: half-open connections, junk, and what others have said.

mod crowd;
mod junk;
mod relay;
mod wiretap;

pub use crowd::{Crowd, Toll};
pub use junk::{Noise, flood, speak};
pub use relay::{Conversation, Relay};
pub use wiretap::{Datagram, Wiretap, forge};
