//! The load: issues items, closed loop or open, and follows each to its end.

mod call;
mod issue;
mod requests;
mod run;
mod state;
mod stream;

pub use state::Load;
