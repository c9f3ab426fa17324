//! What a stranger on the underlay throws at a router: half-open connections, junk, and what others have said. And what
//! a container throws at its neighbours.

mod crowd;
mod junk;
mod relay;
mod storm;
mod wiretap;

pub use crowd::{Crowd, Toll};
pub use junk::{Noise, flood, speak};
pub use relay::{Conversation, Relay};
pub use storm::{Raged, Storm};
pub use wiretap::{Datagram, Wiretap, forge};
