//! The server of a Dunlin federation: who takes part, what counts, what the next model is, and what must survive.

pub mod aggregate;
pub mod broadcast;
pub mod global;
pub mod store;
pub mod strategy;
pub mod coordinator;
pub mod engine;
pub mod evaluate;
pub mod vet;
pub mod driver;
pub mod service;
pub mod command;
pub mod serve;
