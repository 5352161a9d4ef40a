//! The dunlin library.
