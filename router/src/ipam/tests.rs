//! The allocator in company: scenarios, faults and models over a small deterministic network.

mod faults;
mod membership;
mod restart;
mod ring_model;
mod seeding;
mod space;
mod world;
