//! Lists the files of `web/dist`, so that they are part of the binary: neither
//! building nor serving needs Node. `make lint` proves that they are what
//! `web/src` makes.

use std::{env, error::Error, fmt::Write as _, fs, path::Path};

use sha2::{Digest as _, Sha256};

/// Where the built page lies.
const DIST: &str = "../../web/dist";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={DIST}");
    let root = fs::canonicalize(Path::new(&env::var("CARGO_MANIFEST_DIR")?).join(DIST))?;
    let mut files = vec![root.join("index.html")];
    for entry in fs::read_dir(root.join("assets"))? {
        files.push(entry?.path());
    }
    files.sort();
    let mut table = String::from("&[\n");
    for file in files {
        let name = file
            .strip_prefix(&root)?
            .to_str()
            .ok_or("a name in UTF-8")?;
        let (path, immutable) = match name {
            "index.html" => ("/".to_owned(), false),
            // Vite puts a hash of the bytes into the names of what it makes.
            name => (format!("/{name}"), name.contains("index-")),
        };
        let mut etag = String::new();
        for byte in Sha256::digest(fs::read(&file)?).iter().take(16) {
            write!(etag, "{byte:02x}")?;
        }
        writeln!(
            table,
            "tipserve_http::Asset {{ path: {path:?}, content_type: {:?}, \
             body: include_bytes!({file:?}), encoding: None, etag: {etag:?}, \
             immutable: {immutable} }},",
            content_type(name)?
        )?;
    }
    table.push(']');
    let out = Path::new(&env::var("OUT_DIR")?).join("assets.rs");
    fs::write(out, table)?;
    Ok(())
}

fn content_type(name: &str) -> Result<&'static str, String> {
    Ok(match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("txt") => "text/plain; charset=utf-8",
        _ => return Err(format!("web/dist/{name} is of no type that is served")),
    })
}
