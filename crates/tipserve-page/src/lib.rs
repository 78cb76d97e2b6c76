//! The page that the server shows to browsers: made from `web/` with Vite,
//! committed as `web/dist`, and part of the binary.
//!
//! ```
//! let first = tipserve_page::ASSETS.iter().find(|asset| asset.path == "/");
//! assert!(first.is_some_and(|page| page.content_type.starts_with("text/html")));
//! ```

#![forbid(unsafe_code)]

/// The page's files, by their paths.
pub static ASSETS: &[tipserve_http::Asset] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_only_files_that_are_here() {
        let page = ASSETS
            .iter()
            .find(|asset| asset.path == "/")
            .expect("a page");
        let text = std::str::from_utf8(page.body).expect("UTF-8");
        let mut named = 0;
        for part in text.split('"').filter(|part| part.starts_with("/assets/")) {
            assert!(ASSETS.iter().any(|asset| asset.path == part), "{part}");
            named += 1;
        }
        assert!(named >= 3, "{named} files named");
        assert!(
            !text.contains("<script>") && !text.contains("style="),
            "inline"
        );
        assert!(!text.contains("//"), "something from elsewhere");
    }

    #[test]
    fn a_first_visit_is_small_even_without_compression() {
        let bytes: usize = ASSETS
            .iter()
            .filter(|asset| !asset.path.ends_with(".txt"))
            .map(|asset| asset.body.len())
            .sum();
        assert!(bytes < 200_000, "{bytes} bytes");
    }
}
