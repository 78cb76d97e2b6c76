//! Reads examples lazily: one thread, a bounded channel, the next example only
//! once there is room for it (backpressure).

use std::path::Path;

use tokio::sync::mpsc;

use crate::{
    failure::Failure,
    files::{self, Unusable},
    labelled::{Example, Labelled, Place, Purpose, Source},
    npz,
};
use tipserve_api::v1::Input;

/// Examples that are read ahead of the network.
const READ_AHEAD: usize = 4;

/// An example with its content.
#[derive(Debug)]
pub(crate) struct LoadedExample {
    /// The example's id, as the server will report it.
    pub id: String,
    /// Index of its class among the source's.
    pub class: usize,
    /// Its classes, if its source gives any number of classes for each picture.
    pub labels: Option<Vec<usize>>,
    /// What it is for.
    pub purpose: Purpose,
    /// The picture or embedding.
    pub input: Result<Input, Unusable>,
}

impl LoadedExample {
    /// Takes the class's index and the picture or embedding, as the wire has
    /// them.
    pub(crate) fn content(&mut self) -> Result<(i32, Input), Unusable> {
        let class = i32::try_from(self.class).map_err(|_| Unusable::class_index(self.class))?;
        let nothing = Ok(Input::default());
        Ok((class, std::mem::replace(&mut self.input, nothing)?))
    }
}

/// Class indices for the wire; empty for an example with one class.
///
/// # Errors
/// An index that does not fit the wire's type.
pub(crate) fn class_indices(labels: Option<&[usize]>) -> Result<Vec<i32>, Unusable> {
    let labels = labels.unwrap_or_default().iter();
    labels
        .map(|class| i32::try_from(*class).map_err(|_| Unusable::class_index(*class)))
        .collect()
}

/// What the reading thread sends; an error is the last thing.
pub(crate) type LoadedExamples = mpsc::Receiver<Result<LoadedExample, Failure>>;

/// Examples to read: their source, what they are for, and what their ids
/// begin with, since two sources may use the same ids.
#[derive(Debug)]
pub(crate) struct Part {
    /// The examples, listed but not read.
    pub labelled: Labelled,
    /// What they are for.
    pub purpose: Purpose,
    /// What their ids begin with.
    pub prefix: String,
}

/// Starts reading. A file that no message of `limit` bytes can carry is
/// unusable; a damaged .npz file ends the reading.
pub(crate) fn start(parts: Vec<Part>, limit: usize) -> LoadedExamples {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    tokio::task::spawn_blocking(move || {
        for part in parts {
            let reader = Reader {
                sender: &sender,
                limit,
                purpose: part.purpose,
                prefix: &part.prefix,
            };
            match reader.read(part.labelled) {
                Ok(true) => {}
                // The call has ended.
                Ok(false) => return,
                Err(failure) => {
                    let _ = sender.blocking_send(Err(failure));
                    return;
                }
            }
        }
    });
    receiver
}

struct Reader<'a> {
    sender: &'a mpsc::Sender<Result<LoadedExample, Failure>>,
    limit: usize,
    purpose: Purpose,
    prefix: &'a str,
}

impl Reader<'_> {
    /// False once nobody takes the examples any more.
    fn read(&self, labelled: Labelled) -> Result<bool, Failure> {
        match &labelled.source {
            Source::Folder(_) | Source::Table(_) => Ok(self.files(labelled.examples)),
            Source::Npz(path) => self.rows(path, labelled.examples),
        }
    }

    fn files(&self, examples: Vec<Example>) -> bool {
        examples.into_iter().all(|mut example| {
            let nowhere = Place::Row(0);
            let input = match std::mem::replace(&mut example.place, nowhere) {
                Place::File(path) => files::read(&path, self.limit),
                Place::Values(values) => Ok(npz::embedding(values)),
                Place::Unusable { reason, message } => Err(Unusable::because(reason, message)),
                Place::Row(_) => return true,
            };
            self.send(example, input)
        })
    }

    /// The rows are read in their order, which is that of the examples.
    fn rows(&self, path: &Path, examples: Vec<Example>) -> Result<bool, Failure> {
        let mut examples = examples.into_iter().peekable();
        let mut open = true;
        npz::Archive::open(path)?.rows("features", &mut |row, values| {
            if let Some(example) = examples.next_if(|one| one.place == Place::Row(row)) {
                open = self.send(example, Ok(npz::embedding(values)));
            }
            open && examples.peek().is_some()
        })?;
        Ok(open)
    }

    fn send(&self, example: Example, input: Result<Input, Unusable>) -> bool {
        let loaded = LoadedExample {
            id: format!("{}{}", self.prefix, example.id),
            class: example.class,
            labels: example.labels,
            purpose: self.purpose,
            input,
        };
        self.sender.blocking_send(Ok(loaded)).is_ok()
    }
}
