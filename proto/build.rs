//! Compiles the protocol with protox, so that no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stub = |feature: &str| std::env::var_os(format!("CARGO_FEATURE_{feature}")).is_some();
    let files = protox::compile(["dunlin/v1/dunlin.proto"], ["."])?;
    println!("cargo:rerun-if-changed=dunlin");
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("dunlin_descriptor.bin"), prost::Message::encode_to_vec(&files))?;
    tonic_prost_build::configure()
        .build_client(stub("CLIENT"))
        .build_server(stub("SERVER"))
        .bytes(".dunlin.v1")
        .compile_fds(files)?;
    Ok(())
}
