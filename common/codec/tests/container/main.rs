//! Containers from outside: what goes in comes out, how small it gets, what is refused, and the bytes as they were.

mod hostile;
mod round_trip;
mod support;
