//! The formats of an RPC's requests and answers over HTTP.

/// A format of requests and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The messages themselves, in ProtoJSON.
    Proto,
    /// The Open Inference Protocol over HTTP.
    Inference(Shape),
    /// OpenAI's embeddings API, for Embed.
    Embeddings,
}

/// How an answer becomes a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The message itself, in JSON.
    Whole,
    /// The value of one of its fields.
    Field(&'static str),
    /// No body: the status says whether its one field is true.
    Truth,
    /// Tensors, in JSON or binary.
    Tensors,
}
