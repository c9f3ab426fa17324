//! The overlay in virtual time: one alone, and several over a path that can be broken at will.

mod alone;
mod faults;
mod host;
mod property;
mod restart;
mod switching;
mod world;
