//! The server of a Dunlin federation: who takes part, what counts, what the next model is, and what must survive.

pub mod aggregate;
pub mod broadcast;
pub mod command;
pub mod coordinator;
mod decoding;
pub mod distill;
pub mod driver;
pub mod engine;
pub mod evaluate;
pub mod global;
pub mod packet;
pub mod serve;
pub mod service;
pub mod store;
pub mod strategy;
pub mod vet;
