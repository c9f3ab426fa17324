//! The router: where does this frame go, and who owns this address?
//!
//! | room | the question it answers |
//! |---|---|
//! | [`node`] | the control machine: who is there, who owns what, which carrier, which container |
//! | [`ipam`] | who owns which address, and which is free |
//! | [`overlay`] | one peer, one carrier: what works, what is used, why |
//! | [`dataplane`] | the hot machine: from a captured frame to a datagram, and back |
//! | [`switch`] | one look-up: forward, flood or drop |
//! | [`sleeve`] | sealed datagrams between neighbours: keys, pieces, heartbeats, path MTU |
//! | [`alarms`] | who wants to be called when |
//! | [`io`] | the operating system: the only rooms that read a clock or touch a socket |
//! | [`config`], [`cli`], [`daemon`] | what was typed, what it means, and the loop that drives it all |

pub mod alarms;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod dataplane;
pub mod exit_code;
pub mod io;
pub mod ipam;
pub mod node;
pub mod overlay;
pub mod sleeve;
pub mod switch;
