//! The client and the load generator stand alone: no libtorch, no server.

use std::process::Command;

/// What only the server needs, and what only a `.venv` gives.
const SERVER_ONLY: &[&str] = &[
    "tch",
    "torch-sys",
    "tip-adapter",
    "tip-kernels",
    "tipserve-clip",
    "tipserve-store",
    "tipserve-engine",
    "tipserve",
    "tokenizers",
    "turbojpeg-sys",
];

#[test]
fn the_client_crates_depend_on_nothing_of_the_server() {
    for package in ["tipserve-cli", "tipserve-bench"] {
        let tree = Command::new(env!("CARGO"))
            .args(["tree", "--offline", "--locked", "--prefix", "none"])
            .args(["--edges", "normal,build", "--format", "{lib} {p}"])
            .args(["--package", package])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&tree.stderr);
        assert!(tree.status.success(), "{stderr}");
        let tree = String::from_utf8(tree.stdout).unwrap();
        assert!(tree.contains("tonic v"), "{tree}");
        for line in tree.lines() {
            let name = line.split_whitespace().nth(1).unwrap_or_default();
            assert!(!SERVER_ONLY.contains(&name), "{package} depends on {line}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_clients_binary_loads_no_libtorch() {
    let binary = std::fs::read(crate::BINARY).unwrap();
    for library in ["libtorch", "libc10", "libstdc++"] {
        let needed = format!("{library}.so");
        let found = binary
            .windows(needed.len())
            .any(|window| window == needed.as_bytes());
        assert!(!found, "{} names {needed}", crate::BINARY);
    }
}
