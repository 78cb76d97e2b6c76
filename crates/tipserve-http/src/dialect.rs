//! How requests and answers of an RPC are written.

/// A way of writing requests and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// ProtoJSON.
    Proto,
    /// The Open Inference Protocol's.
    Inference(Shape),
    /// That of OpenAI's embeddings.
    Embeddings,
}

/// How an answer is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The message.
    Whole,
    /// One of its fields.
    Field(&'static str),
    /// Nothing: the status says whether its one field is true.
    Truth,
    /// Tensors.
    Tensors,
}
