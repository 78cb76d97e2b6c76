//! Reads examples lazily: one thread, a bounded channel, the next example only
//! once there is room for it (backpressure).

use std::{path::Path, pin::pin};

use futures::{StreamExt as _, stream};
use tokio::{runtime::Handle, sync::mpsc};

use crate::{
    failure::Failure,
    files::{self, Unusable},
    inline_address,
    labelled::{Example, Labelled, Place, Purpose, Source},
    npz,
    pull::PictureReader,
    tables,
};
use tipserve_api::v1::Input;

/// Examples that are read ahead of the network.
const READ_AHEAD: usize = 4;

/// Addresses that are read at a time: each takes a round trip or more.
const ADDRESSES_AHEAD: usize = 16;

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
        let remote = |one: &Example| matches!(one.place, Place::Address(_));
        match &labelled.source {
            Source::Folder(_) | Source::Table(_) if labelled.examples.iter().any(remote) => {
                self.fetched(labelled.examples)
            }
            Source::Folder(_) | Source::Table(_) => Ok(self.files(labelled.examples)),
            Source::Npz(path) => self.rows(path, labelled.examples),
            Source::Parquet(path) => self.cells(path, labelled.examples),
        }
    }

    fn files(&self, examples: Vec<Example>) -> bool {
        examples.into_iter().all(|mut example| {
            let input = self.local(example.take_place());
            self.send(example, input)
        })
    }

    /// What lies on this machine.
    fn local(&self, place: Place) -> Result<Input, Unusable> {
        match place {
            Place::File(path) => files::read(&path, self.limit),
            Place::Values(values) => Ok(npz::embedding(values)),
            Place::Inline(address) => {
                let content = inline_address::picture(&address);
                let failed =
                    |why| Unusable::because("FILE_UNREADABLE", format!("cannot be read: {why}"));
                files::picture(content.map_err(failed)?, self.limit)
            }
            Place::Unusable { reason, message } => Err(Unusable::because(reason, message)),
            Place::Address(_) | Place::Row(_) => Err(Unusable::because(
                "FILE_UNREADABLE",
                "is not on this machine".to_owned(),
            )),
        }
    }

    /// Several addresses are read at a time, and their examples sent in order.
    fn fetched(&self, examples: Vec<Example>) -> Result<bool, Failure> {
        let reader = PictureReader::new()?;
        let inputs = stream::iter(examples).map(|mut example| {
            let reader = &reader;
            async move {
                let input = match example.take_place() {
                    Place::Address(address) => self.fetch(reader, &address).await,
                    place => self.local(place),
                };
                (example, input)
            }
        });
        let mut inputs = pin!(inputs.buffered(ADDRESSES_AHEAD));
        Ok(Handle::current().block_on(async {
            while let Some((example, input)) = inputs.next().await {
                if self
                    .sender
                    .send(Ok(self.loaded(example, input)))
                    .await
                    .is_err()
                {
                    return false;
                }
            }
            true
        }))
    }

    async fn fetch(&self, reader: &PictureReader, address: &str) -> Result<Input, Unusable> {
        let read = reader.read(address, files::most_bytes(self.limit)).await;
        let content = read.map_err(|error| {
            Unusable::because("FILE_UNREADABLE", format!("cannot be read: {error}"))
        })?;
        files::picture(content, self.limit)
    }

    /// The pictures of a Parquet file, in the order of its rows, which is that of the examples.
    fn cells(&self, path: &Path, examples: Vec<Example>) -> Result<bool, Failure> {
        let mut pictures = tables::ParquetPictures::open(path)?;
        let reader = PictureReader::new()?;
        for mut example in examples {
            let input = match example.take_place() {
                Place::Row(row) => files::picture(pictures.bytes(row)?, self.limit),
                Place::Address(address) => {
                    Handle::current().block_on(self.fetch(&reader, &address))
                }
                place => self.local(place),
            };
            if !self.send(example, input) {
                return Ok(false);
            }
        }
        Ok(true)
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
        let loaded = self.loaded(example, input);
        self.sender.blocking_send(Ok(loaded)).is_ok()
    }

    fn loaded(&self, example: Example, input: Result<Input, Unusable>) -> LoadedExample {
        LoadedExample {
            id: format!("{}{}", self.prefix, example.id),
            class: example.class,
            labels: example.labels,
            purpose: self.purpose,
            input,
        }
    }
}
