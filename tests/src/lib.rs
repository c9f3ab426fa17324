//! The harness: real hosts, real containers and a real underlay, each a network namespace of this machine.
//!
//! A test reads top down: [`scenario()`] hands it a [`Fabric`] (the cable between hosts), the fabric gives out
//! [`Host`]s and [`Container`]s, a host runs the `weft` binary exactly as a user would, and [`traffic`] and [`sniff`]
//! look at what arrives. Everything is named after the running process and vanishes with its owner, so tests run in
//! parallel and leave nothing behind. Nothing here waits for ever: every wait has a deadline and says what it missed.

pub mod attack;
pub mod cni;
pub mod command;
pub mod container;
pub mod containerd;
pub mod counters;
pub mod deadline;
pub mod disk;
pub mod fabric;
pub mod flaky;
pub mod frames;
pub mod host;
pub mod kernel;
pub mod netns;
pub mod process;
pub mod scenario;
pub mod sniff;
pub mod starve;
mod sys;
pub mod traffic;
pub mod world;

pub use command::Outcome;
pub use container::Container;
pub use fabric::Fabric;
pub use host::Host;
pub use netns::Netns;
pub use scenario::{scenario, scenario_alone};
