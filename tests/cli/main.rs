//! The command line through the compiled binary, against a server in this
//! process that answers logically but knows no pictures (`fake`).

mod add;
mod bench;
mod caches;
mod classify;
mod create;
mod demo;
mod errors;
mod evaluate;
mod fake;
mod finetune;
mod npz;
mod run;
mod scripted;
mod transfer;
mod versions;
