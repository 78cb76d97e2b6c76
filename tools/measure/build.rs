//! Compiles torch's profiler (`native/`), and tells the linker where libtorch
//! lies, so that binaries and tests run without LD_LIBRARY_PATH.

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=native");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    // torch-sys says where it found libtorch, and looks for the headers in the same way.
    let lib = PathBuf::from(env::var("DEP_TCH_LIBTORCH_LIB")?);
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    let root = env::var_os("LIBTORCH_INCLUDE").map(PathBuf::from);
    let root = root.unwrap_or_else(|| lib.join(".."));
    let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .flag(format!("-D_GLIBCXX_USE_CXX11_ABI={abi}"))
        .flag("-isystem")
        .flag(root.join("include"))
        .file("native/profile.cpp")
        .compile("tipserve_measure_native");
    Ok(())
}
