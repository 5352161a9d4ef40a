//! The wire protocol of Dunlin: generated messages, and gRPC stubs on request.
//!
//! These types are named where they are converted (`dunlin_core::wire`), served and called, and nowhere else.

/// Version 1 of the protocol; its text is `proto/dunlin/v1/dunlin.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/dunlin.v1.rs"));
}

/// The compiled descriptors, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dunlin_descriptor.bin"));
