//! Reads examples lazily: one thread, a bounded channel, the next example
//! only when there is room.

use std::{fs::File, path::Path};

use tokio::sync::mpsc;

use super::{
    failure::Failure,
    files::{self, Unusable},
    labelled::{Labelled, Place, Source},
    npz,
};
use tipserve_api::v1::{Embedding, Input, input::Content};

/// Examples that are read ahead of the network.
const READ_AHEAD: usize = 4;

/// An example with its content.
#[derive(Debug)]
pub struct Loaded {
    /// Its id.
    pub id: String,
    /// Its class.
    pub class: usize,
    /// Whether it validates.
    pub validation: bool,
    /// The picture or embedding.
    pub input: Result<Input, Unusable>,
}

/// What comes out of the reading thread; an error is the last thing.
pub type Loading = mpsc::Receiver<Result<Loaded, Failure>>;

/// Examples to read: their source, whether they validate, and what their ids
/// begin with, since two sources may use the same ids.
#[derive(Debug)]
pub struct Part {
    /// The examples.
    pub labelled: Labelled,
    /// Whether they validate.
    pub validation: bool,
    /// What their ids begin with.
    pub prefix: String,
}

/// Starts reading. A file that no message of `limit` bytes can carry is
/// unusable; a damaged .npz file ends the reading.
pub fn start(parts: Vec<Part>, limit: usize) -> Loading {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    tokio::task::spawn_blocking(move || {
        for part in parts {
            match read_part(part, limit, &sender) {
                Ok(true) => {}
                // Nobody listens any more.
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

type Sender = mpsc::Sender<Result<Loaded, Failure>>;

fn read_part(part: Part, limit: usize, sender: &Sender) -> Result<bool, Failure> {
    let mut rows = match &part.labelled.source {
        Source::Folder(_) => None,
        Source::Npz(path) => Some(Rows::open(path)?),
    };
    let Part {
        labelled,
        validation,
        prefix,
    } = part;
    let send = |id: String, class, input| {
        let id = format!("{prefix}{id}");
        sender
            .blocking_send(Ok(Loaded {
                id,
                class,
                validation,
                input,
            }))
            .is_ok()
    };
    match &mut rows {
        None => {
            for pick in labelled.examples {
                let Place::File(path) = pick.place else {
                    continue;
                };
                if !send(pick.id, pick.class, files::read(&path, limit)) {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Some(rows) => {
            let mut picks = labelled.examples.into_iter().peekable();
            rows.each(&mut |row, values| {
                let Some(pick) = picks.next_if(|pick| pick.place == Place::Row(row)) else {
                    return picks.peek().is_some();
                };
                send(pick.id, pick.class, Ok(embedding(values))) && picks.peek().is_some()
            })
        }
    }
}

/// The rows of `features` in an .npz file.
struct Rows {
    archive: npz::Archive<File>,
}

impl Rows {
    fn open(path: &Path) -> Result<Self, Failure> {
        Ok(Self {
            archive: npz::Archive::open(path)?,
        })
    }

    fn each(&mut self, take: &mut dyn FnMut(u64, Vec<f32>) -> bool) -> Result<bool, Failure> {
        self.archive.rows("features", take)?;
        Ok(true)
    }
}

/// An embedding as an input.
pub fn embedding(values: Vec<f32>) -> Input {
    Input {
        content: Some(Content::Embedding(Embedding { values })),
    }
}
