//! Compiles the protos (with protox, so that no protoc is needed) and the few
//! calls of torch that tch lacks (`native/`), and tells the linker where
//! libtorch lies.

use std::{env, error::Error, path::PathBuf};

use protox::prost::Message as _;

const PROTOS: [&str; 5] = [
    "tipserve/v1/input.proto",
    "tipserve/v1/cache.proto",
    "tipserve/v1/classify.proto",
    "tipserve/v1/finetune.proto",
    "inference/grpc_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let descriptors = protox::compile(PROTOS, ["proto"])?;
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .bytes(".tipserve.v1")
        .bytes(".inference")
        .compile_fds(descriptors)?;

    // torch-sys says where it found libtorch; the binary must find it again
    // when it runs, without LD_LIBRARY_PATH.
    let lib = PathBuf::from(env::var("DEP_TCH_LIBTORCH_LIB")?);
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());

    println!("cargo:rerun-if-changed=native");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    // As torch-sys looks for the headers.
    let root = env::var_os("LIBTORCH_INCLUDE").map(PathBuf::from);
    let root = root.unwrap_or_else(|| lib.join(".."));
    let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .flag(format!("-D_GLIBCXX_USE_CXX11_ABI={abi}"))
        .flag("-isystem")
        .flag(root.join("include"))
        .files(["native/cuda_streams.cpp", "native/cuda_graphs.cpp"])
        .compile("tipserve_native");
    Ok(())
}
