//! Tells the linker where libtorch lies, so that binaries and tests run without
//! LD_LIBRARY_PATH.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    // torch-sys says where it found libtorch.
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB")?;
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    Ok(())
}
