//! The `tipserve` binary: parse the command line, run one command.

fn main() {}
