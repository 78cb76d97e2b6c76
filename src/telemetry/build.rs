//! What is served: the build, and the default bundle, which may change while
//! the server runs. Written out here, since a recorder keeps a series for good:
//! that of an earlier default would stay.

use std::fmt::Write as _;

use parking_lot::Mutex;

use super::names::BUILD;

/// The bundle that serves requests that name none.
#[derive(Clone, Debug)]
pub struct DefaultBundle {
    /// Its name, for people.
    pub name: String,
    /// Where it runs: "cpu", "cuda:0".
    pub device: String,
    /// What its image encoder computes in: "float32", "bfloat16", "float16",
    /// "int8".
    pub dtype: &'static str,
}

static SERVED: Mutex<Option<DefaultBundle>> = Mutex::new(None);

/// This bundle is the default one now.
pub(super) fn serves(default: DefaultBundle) {
    *SERVED.lock() = Some(default);
}

/// The series, in Prometheus's text format; none before a bundle serves.
pub(super) fn render(text: &mut String) {
    if let Some(default) = SERVED.lock().as_ref() {
        write(text, default);
    }
}

fn write(text: &mut String, default: &DefaultBundle) {
    let DefaultBundle {
        name,
        device,
        dtype,
    } = default;
    let name = escaped(name);
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(
        text,
        "# HELP {BUILD} 1, with the build and the default bundle as labels.\n\
         # TYPE {BUILD} gauge\n\
         {BUILD}{{version=\"{version}\",bundle=\"{name}\",device=\"{device}\",\
         dtype=\"{dtype}\"}} 1\n"
    );
}

/// A label's value as the text format wants it: the operator names bundles.
fn escaped(value: &str) -> String {
    value
        .replace('\\', r"\\")
        .replace('"', r#"\""#)
        .replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_bundles_are_escaped() {
        let mut text = String::new();
        let bundle = DefaultBundle {
            name: "a \"b\" \\ c\nd".to_owned(),
            device: "cpu".to_owned(),
            dtype: "int8",
        };
        write(&mut text, &bundle);
        let line = text.lines().nth(2).expect("a sample");
        assert!(
            line.contains(r#"bundle="a \"b\" \\ c\nd",device="cpu",dtype="int8"} 1"#),
            "{line}"
        );
    }
}
