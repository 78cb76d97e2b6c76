//! docs/openapi.json is what servers of this source say of themselves.
//! TIPSERVE_WRITE_OPENAPI=1 (`make openapi`) writes it.

use std::path::Path;

#[test]
fn the_committed_document_is_current() {
    let made = tipserve_http::openapi_document(tipserve_api::DESCRIPTORS).expect("a document");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    if std::env::var_os("TIPSERVE_WRITE_OPENAPI").is_some() {
        std::fs::write(&path, &made).expect("written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        made == committed,
        "{} is out of date: make openapi",
        path.display()
    );
}
