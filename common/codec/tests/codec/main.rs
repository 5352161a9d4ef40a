//! The codec from outside: what goes in comes out, how small it gets, and what it refuses.

mod budget;
mod golden;
mod hostile;
mod importance;
mod integers;
mod pitfalls;
mod round_trip;
mod size;
mod source;
mod support;
mod together;
mod vectors;
mod whole;
