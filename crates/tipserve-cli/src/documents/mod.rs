//! The JSON documents: their field names are stable, apart from the wire's
//! types, so that the one can change without the other. docs/cli.md lists them.

mod analysis;
mod answer;
mod bundle;
mod cache;
mod drift;
mod evaluation;
mod finetune;
mod format;
mod head;
mod rejected;
mod run;
mod server;
mod suggestions;
mod version_made;

pub(crate) use analysis::{AnalysisDocument, ClassAnalysisDocument, ExampleTrafficDocument};
pub(crate) use answer::{AnswerDocument, ReplyDocument};
pub(crate) use bundle::LoadedBundleDocument;
pub(crate) use cache::{CacheDocument, ExampleDocument, SourceDocument, VersionDocument};
pub(crate) use drift::DriftDocument;
#[cfg(test)]
pub(crate) use evaluation::ClassEvaluationDocument;
pub(crate) use evaluation::{EvaluateDocument, EvaluationDocument, UnknownDocument};
pub(crate) use finetune::FineTuneDocument;
pub(crate) use head::{CandidateDocument, HeadDocument};
pub(crate) use rejected::{ItemError, RejectedDocument};
pub(crate) use run::RunDocument;
pub(crate) use server::ServerDocument;
pub(crate) use suggestions::SuggestionsDocument;
pub(crate) use version_made::VersionMadeDocument;
