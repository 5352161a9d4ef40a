//! Every service of a server in one router.

use super::{ControlService, FederationService};
use crate::driver::Handle;
use dunlin_proto::v1::control_server::ControlServer;
use dunlin_proto::v1::federation_server::FederationServer;
use std::time::Duration;
use tonic::transport::Server;
use tonic::transport::server::Router;

/// All services before an engine, ready to be served on any stream of connections.
pub async fn router(handle: &Handle) -> Router {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<FederationServer<FederationService>>().await;
    reporter.set_serving::<ControlServer<ControlService>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(dunlin_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors were compiled with the protocol");
    // Windows: an upload of several MiB must not wait for the server's acknowledgements on a long link.
    Server::builder()
        .initial_stream_window_size(2 << 20)
        .initial_connection_window_size(4 << 20)
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .add_service(health)
        .add_service(reflection)
        .add_service(FederationServer::new(FederationService::new(handle.clone())))
        .add_service(ControlServer::new(ControlService::new(handle.clone())))
}
