//! How requests and answers of an RPC are written.

/// A way of writing requests and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// ProtoJSON, of the messages themselves.
    Proto,
    /// The Open Inference Protocol over HTTP.
    Inference(Shape),
    /// OpenAI's embeddings API, for Embed.
    Embeddings,
}

/// How an answer is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As the message itself, in JSON.
    Whole,
    /// As the value of one of its fields.
    Field(&'static str),
    /// Nothing: the status says whether its one field is true.
    Truth,
    /// As tensors, in JSON or as bytes.
    Tensors,
}
