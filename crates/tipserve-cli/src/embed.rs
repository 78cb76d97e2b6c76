//! `tipserve embed`: embeddings of pictures and texts, as JSON.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use clap::Args;
use indicatif::ProgressBar;
use prost::Message as _;
use serde::Serialize;

use crate::{
    connect::Connection,
    documents::ItemError,
    failure::{Completion, Failure},
    files,
    global::Global,
    head::ExifOrientationArg,
    screen::Screen,
};
use tipserve_api::v1::{self, EmbedRequest, EmbedResult, Input, embed_result};

/// Most pictures or texts in one call.
const CALL_ITEMS: usize = 64;

/// Flags of `tipserve embed`.
#[derive(Clone, Debug, Args)]
pub struct EmbedArgs {
    /// Picture files and folders (walked).
    #[arg(value_name = "FILE|DIR", required_unless_present = "text")]
    pub files: Vec<PathBuf>,
    /// A text; may be repeated.
    #[arg(long, value_name = "TEXT")]
    pub text: Vec<String>,
    /// The bundle to encode with: its name or fingerprint [default: the
    /// server's].
    #[arg(
        long,
        value_name = "BUNDLE",
        default_value = "",
        hide_default_value = true
    )]
    pub bundle: String,
    /// Truncate texts that are too long for the encoder.
    #[arg(long)]
    pub truncate: bool,
    /// Print the encoder's raw output instead of unit vectors.
    #[arg(long)]
    pub raw: bool,
    /// What to do with the orientation that cameras write beside the pixels;
    /// for a cache that ignores it, ignore it here too.
    #[arg(long, value_enum, value_name = "WHAT", default_value_t)]
    pub exif_orientation: ExifOrientationArg,
}

/// One entry of `inputs` or `texts`.
#[derive(Serialize)]
struct EmbeddingDocument<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ItemError>,
}

/// Runs `tipserve embed`: prints `{"inputs": [...], "texts": [...]}`, written
/// as the answers come.
pub async fn run(args: EmbedArgs, global: &Global, screen: &Screen) -> Result<Completion, Failure> {
    let paths = files(&args)?;
    if paths.is_empty() && args.text.is_empty() {
        return Err(Failure::Input("there is no file to embed".to_owned()));
    }
    let connection = Connection::open(global).await?;
    let total = paths.len() + args.text.len();
    let mut call = Call {
        limit: connection.message_limit().await?,
        connection: &connection,
        args: &args,
        bar: screen.bar(Some(total as u64), "embedded"),
        writer: Writer::default(),
    };
    // The first call is made before anything is written, so that its failure
    // is the only document.
    call.all_pictures(&paths).await?;
    for texts in args.text.chunks(CALL_ITEMS) {
        call.texts(texts).await?;
    }
    call.bar.finish_and_clear();
    call.writer.end()
}

/// The files to embed, those in folders included.
fn files(args: &EmbedArgs) -> Result<Vec<PathBuf>, Failure> {
    let mut paths = Vec::new();
    for path in &args.files {
        if path.is_dir() {
            for file in files::walk(path) {
                paths.push(file?);
            }
        } else {
            paths.push(path.clone());
        }
    }
    Ok(paths)
}

struct Call<'a> {
    connection: &'a Connection,
    args: &'a EmbedArgs,
    limit: usize,
    bar: ProgressBar,
    writer: Writer,
}

impl Call<'_> {
    async fn embed(
        &self,
        inputs: Vec<Input>,
        texts: Vec<String>,
    ) -> Result<(Vec<EmbedResult>, Vec<EmbedResult>), Failure> {
        let (pictures, words) = (inputs.len(), texts.len());
        let request = EmbedRequest {
            inputs,
            texts,
            truncate_texts: self.args.truncate,
            raw: self.args.raw,
            exif_orientation: v1::ExifOrientation::from(self.args.exif_orientation).into(),
            bundle: self.args.bundle.clone(),
        };
        let size = request.encoded_len();
        if size > self.limit {
            return Err(Failure::Input(format!(
                "the texts take {size} bytes, but the server takes messages of at most {} bytes",
                self.limit
            )));
        }
        let mut client = self.connection.classify();
        let answer = self
            .connection
            .unary("embedding", client.embed(request))
            .await?;
        if (answer.inputs.len(), answer.texts.len()) != (pictures, words) {
            return Err(Failure::Broken(format!(
                "embedding: the server answered {} of {pictures} pictures and {} of {words} texts",
                answer.inputs.len(),
                answer.texts.len()
            )));
        }
        Ok((answer.inputs, answer.texts))
    }

    /// Embeds picture files, as many in a call as a message carries.
    async fn all_pictures(&mut self, paths: &[PathBuf]) -> Result<(), Failure> {
        let mut pictures = Vec::new();
        let mut size = 0;
        for path in paths {
            let input = files::read(path, self.limit);
            let weight = input.as_ref().map_or(0, |input| input.encoded_len() + 16);
            if pictures.len() >= CALL_ITEMS || size + weight > self.limit - self.limit / 16 {
                self.pictures(std::mem::take(&mut pictures)).await?;
                size = 0;
            }
            size += weight;
            pictures.push((files::readable(path), input.map_err(files::Unusable::error)));
        }
        self.pictures(pictures).await
    }

    async fn pictures(
        &mut self,
        pictures: Vec<(String, Result<Input, ItemError>)>,
    ) -> Result<(), Failure> {
        let inputs: Vec<_> = pictures
            .iter()
            .filter_map(|(_, input)| input.as_ref().ok().cloned())
            .collect();
        let mut answers = if inputs.is_empty() {
            Vec::new().into_iter()
        } else {
            self.embed(inputs, Vec::new()).await?.0.into_iter()
        };
        for (id, input) in pictures {
            let outcome = match input {
                // As many answers as pictures: `embed` has checked it.
                Ok(_) => answers.next().map_or_else(|| Err(no_answer()), result),
                Err(error) => Err(error),
            };
            self.writer.write("inputs", &id, outcome)?;
            self.bar.inc(1);
        }
        Ok(())
    }

    async fn texts(&mut self, texts: &[String]) -> Result<(), Failure> {
        let answers = self.embed(Vec::new(), texts.to_vec()).await?.1;
        for (text, answer) in texts.iter().zip(answers) {
            self.writer.write("texts", text, result(answer))?;
            self.bar.inc(1);
        }
        Ok(())
    }
}

fn result(answer: EmbedResult) -> Result<Vec<f32>, ItemError> {
    match answer.outcome {
        Some(embed_result::Outcome::Embedding(embedding)) => Ok(embedding.values),
        Some(embed_result::Outcome::Error(status)) => Err(status.into()),
        None => Err(no_answer()),
    }
}

fn no_answer() -> ItemError {
    ItemError {
        code: "INTERNAL".to_owned(),
        reason: None,
        message: "the server's answer is empty".to_owned(),
    }
}

/// Writes the document piece by piece.
#[derive(Default)]
struct Writer {
    list: Option<&'static str>,
    failed: u64,
}

impl Writer {
    fn write(
        &mut self,
        list: &'static str,
        id: &str,
        outcome: Result<Vec<f32>, ItemError>,
    ) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        match (self.list, list) {
            (None, "inputs") => out.write_all(b"{\"inputs\":[\n")?,
            (None, _) => out.write_all(b"{\"inputs\":[],\"texts\":[\n")?,
            (Some(open), list) if open != list => out.write_all(b"\n],\"texts\":[\n")?,
            (Some(_), _) => out.write_all(b",\n")?,
        }
        self.list = Some(list);
        let (embedding, error) = match outcome {
            Ok(values) => (Some(values), None),
            Err(error) => {
                self.failed += 1;
                (None, Some(error))
            }
        };
        let document = EmbeddingDocument {
            id,
            embedding,
            error,
        };
        serde_json::to_writer(&mut out, &document).map_err(io::Error::from)?;
        Ok(())
    }

    fn end(self) -> Result<Completion, Failure> {
        let mut out = io::stdout().lock();
        match self.list {
            None => out.write_all(b"{\"inputs\":[],\"texts\":[]}\n")?,
            Some("inputs") => out.write_all(b"\n],\"texts\":[]}\n")?,
            Some(_) => out.write_all(b"\n]}\n")?,
        }
        out.flush()?;
        Ok(Completion::with_failed(self.failed))
    }
}
