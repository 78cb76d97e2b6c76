//! Compiles the protos, with protox, so that no protoc is needed.

use std::{env, error::Error, path::PathBuf};

const PROTOS: [&str; 7] = [
    "tipserve/v1/input.proto",
    "tipserve/v1/cache.proto",
    "tipserve/v1/classify.proto",
    "tipserve/v1/finetune.proto",
    "tipserve/v1/analysis.proto",
    "tipserve/v1/bundle.proto",
    "inference/grpc_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(PROTOS)?;
    // As the compiler encodes them, for options of methods (google.api.http) are
    // unknown to the types that the code is generated from, and would be lost.
    std::fs::write(
        out.join("descriptors.bin"),
        compiler.encode_file_descriptor_set(),
    )?;
    let descriptors = compiler.file_descriptor_set();
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
