//! Compiles the few calls of torch that tch lacks (`native/`), and tells the
//! linker where libtorch lies.

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    // torch-sys says where it found libtorch; what links it must find it again
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
        .files([
            "native/cuda_streams.cpp",
            "native/cuda_graphs.cpp",
            "native/mapped.cpp",
            "native/modules.cpp",
            "native/tensor_memory.cpp",
        ])
        .compile("tipserve_native");
    Ok(())
}
