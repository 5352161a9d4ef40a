//! The gRPC service over pipes in memory: no ports, no processes, the real client and the real server.

mod calls;
mod contract;
mod cut;
mod hostile;
mod world;
