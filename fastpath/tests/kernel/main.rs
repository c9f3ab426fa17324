//! What this crate does to a real kernel, each test in network namespaces of its own.
//!
//! They need to make namespaces: run them as root, or under `unshare -Urnm`. Where that is not permitted they
//! fail and say so; nothing is skipped.

#![expect(clippy::unwrap_used, reason = "what the tests share is outside of `#[test]` functions")]

mod attach;
mod capture;
mod carriers;
mod converge;
mod filter;
mod forward;
mod host;
mod intruder;
mod lock;
mod masquerade;
mod mesh;
mod packet;
mod trial;
mod undo;
mod vxlan;
mod world;
