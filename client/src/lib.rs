//! The client of a Dunlin federation: fetches what it lacks, trains on data that stays, uploads what little is needed.

pub mod command;
pub mod data;
pub mod driver;
pub mod participant;
pub mod state;
pub mod trainer;
pub mod transport;
pub mod work;
