//! `tipserve-bench`: the load generator by itself, for machines without the
//! server: it needs no libtorch.

use std::process::ExitCode;

use clap::Parser;
use tipserve_bench::BenchArgs;
use tipserve_cli::{Global, parse};

/// Puts a load on a tipserve server and measures its answers.
#[derive(Debug, Parser)]
#[command(name = "tipserve-bench", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    bench: BenchArgs,
}

fn main() -> ExitCode {
    let cli: Cli = parse(&[]);
    tipserve_bench::run(cli.bench, &cli.global)
}
