//! Compiles the protos, with protox, so that no protoc is needed.

use std::{env, error::Error, path::PathBuf};

use protox::prost::Message as _;

const PROTOS: [&str; 6] = [
    "tipserve/v1/input.proto",
    "tipserve/v1/cache.proto",
    "tipserve/v1/classify.proto",
    "tipserve/v1/finetune.proto",
    "tipserve/v1/analysis.proto",
    "inference/grpc_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let descriptors = protox::compile(PROTOS, ["proto"])?;
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // The codec bounds what decoding allocates by the message's name.
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    tonic_prost_build::configure()
        .codec_path("crate::codec::BoundedCodec")
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .bytes(".tipserve.v1")
        .bytes(".inference")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
