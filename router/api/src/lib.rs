//! How one talks to the router.
//!
//! Two local sockets, both mode 0600, nothing on the network:
//!
//! - the API socket (`weft.sock`): HTTP/1.1 with JSON; one `POST /v1/call` a connection carries a [`Request`] and
//!   brings an [`Answer`] ([`Client::call`]);
//! - the attach socket (`weft-attach.sock` beside it): `SOCK_SEQPACKET`; one packet carries a [`Request`] in JSON and
//!   two descriptors ([`Descriptors`]), one packet brings the [`Answer`] ([`Client::call_with`]).
//!
//! The crate blocks and has no runtime in it: whoever calls it may be a plugin that lives for a millisecond.

mod answer;
mod client;
mod cni;
mod deadline;
mod error;
mod http;
pub mod netns;
mod report;
mod request;
mod status;
mod sys;

pub use answer::{Answer, Response};
pub use client::{CALL_PATH, Client, LARGEST_PACKET, attach_socket};
pub use cni::{CniAdd, CniAttached, CniLease, CniName, CniNote, CniRoute, CniStatus, notes_directory};
pub use error::{ApiError, ErrorCode};
pub use netns::{Descriptors, Namespace, NetnsError};
pub use report::{Counter, DoctorLine, Metrics, Report, Severity};
pub use request::{Attach, Request, attachment_id};
pub use status::{
    Attachment, AttachmentState, Carrier, Connection, ConnectionState, Direction, Ipam, IpamState, Owner,
    Peer, Status, ThisPeer, Transport,
};
pub use sys::receive;
