//! Which of a table's columns hold what.

/// Names of columns with pictures, in the order in which they are preferred.
const PICTURES: [&str; 18] = [
    "image",
    "img",
    "picture",
    "photo",
    "image_path",
    "img_path",
    "filepath",
    "file_path",
    "path",
    "file_name",
    "filename",
    "file",
    "image_url",
    "img_url",
    "url",
    "embedding",
    "embeddings",
    "features",
];
const LABELS: [&str; 6] = [
    "label",
    "labels",
    "class",
    "class_name",
    "category",
    "target",
];
const IDS: [&str; 3] = ["id", "example_id", "image_id"];

/// The columns' own names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub picture: String,
    pub label: String,
    pub id: Option<String>,
}

impl Columns {
    /// Finds the columns by their names, in any case.
    ///
    /// # Errors
    /// Where that would be a guess.
    pub fn among(names: &[&str]) -> Result<Self, String> {
        let find = |wanted: &&str| {
            let same = |name: &&&str| name.eq_ignore_ascii_case(wanted);
            names.iter().find(same).map(|name| (*name).to_owned())
        };
        let listed = match names {
            [] | [""] => "none".to_owned(),
            names => names.join(", "),
        };
        let picture = PICTURES.iter().find_map(find).ok_or_else(|| {
            format!(
                "of its columns ({listed}) none is a picture's: {}",
                PICTURES.join(", ")
            )
        })?;
        let mut labels: Vec<String> = LABELS.iter().filter_map(&find).collect();
        let label = match (labels.pop(), labels.as_slice()) {
            (Some(label), []) => label,
            (last, others) => {
                let which: Vec<String> = others.iter().cloned().chain(last).collect();
                let which = match which.as_slice() {
                    [] => "none".to_owned(),
                    which => which.join(" and "),
                };
                return Err(format!(
                    "of its columns ({listed}) {which} may be the class's: name one of them 'label'"
                ));
            }
        };
        let id = IDS.iter().find_map(find);
        for wanted in [Some(&picture), Some(&label), id.as_ref()]
            .into_iter()
            .flatten()
        {
            let same = names
                .iter()
                .filter(|name| name.eq_ignore_ascii_case(wanted));
            if same.count() > 1 {
                return Err(format!(
                    "of its columns ({listed}) several are called {wanted:?}: leave all but one out"
                ));
            }
        }
        Ok(Self { picture, label, id })
    }
}
