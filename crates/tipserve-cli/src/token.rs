//! `tipserve token`: making tokens for a server.

use std::io::Write as _;

use chrono::{Duration, SecondsFormat, Utc};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{failure::Failure, screen::Screen};
use tipserve_api::methods::Role;
use tipserve_api::tokens::{check_name, check_prefix, generate};

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token: print it once, and its entry for the server's tokens file.
    New(NewArgs),
}

/// Flags of `tipserve token new`.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// Its name, which logs and the audit show: 1 to 64 of a-z, A-Z, 0-9, '-', '_', '.', '@'.
    #[arg(long)]
    name: String,
    /// What it allows: classify (and read), write as well, or delete as well (admin).
    #[arg(long, value_enum)]
    role: Role,
    /// Only caches whose ids begin with this [default: all].
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,
    /// Days until it expires [default: never].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    expires_in_days: Option<u32>,
}

/// Runs `tipserve token …`, which needs no server.
pub fn run(command: &TokenCommand, screen: &Screen) -> Result<(), Failure> {
    let TokenCommand::New(args) = command;
    check_name(&args.name).map_err(|problem| Failure::Usage(format!("--name: {problem}")))?;
    check_prefix(&args.prefix).map_err(|problem| Failure::Usage(format!("--prefix: {problem}")))?;
    let (token, hash) =
        generate().map_err(|error| Failure::Broken(format!("no random bytes: {error}")))?;
    let entry = entry(args, &hash);
    if screen.json {
        return screen.document(&json!({"token": token, "entry": entry}));
    }
    // The token alone on standard output: it can go into a file unseen, and the
    // entry to the end of the tokens file.
    screen.line(&token)?;
    let mut remark = std::io::stderr().lock();
    writeln!(
        remark,
        "\n# The token on standard output is shown this once. The server's entry, for the file\n\
         # of --tokens:\n{entry}"
    )?;
    Ok(())
}

fn entry(args: &NewArgs, hash: &str) -> String {
    let mut entry = format!(
        "[[token]]\nname = \"{}\"\nhash = \"{hash}\"\nrole = \"{}\"\n",
        args.name, args.role
    );
    if !args.prefix.is_empty() {
        entry += &format!("prefix = \"{}\"\n", args.prefix);
    }
    if let Some(days) = args.expires_in_days {
        let end = Utc::now() + Duration::days(days.into());
        let end = end.to_rfc3339_opts(SecondsFormat::Secs, true);
        entry += &format!("expires = {end}\n");
    }
    entry
}
