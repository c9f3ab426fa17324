//! Several machines wired together in virtual time.

mod net;
mod property;
mod scenarios;
mod security;
