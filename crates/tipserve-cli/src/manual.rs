//! The manual's pages, made of the same definitions as `--help`.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;

/// Flags of `tipserve man`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  tipserve man | man -l -
  tipserve man --dir ~/.local/share/man/man1")]
pub struct ManualArgs {
    /// Write the pages of all commands into this folder: tipserve.1,
    /// tipserve-create.1, …
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Prints the page of a program, or writes those of all its commands.
pub fn manual(args: &ManualArgs, command: clap::Command) -> ExitCode {
    let written = match &args.dir {
        Some(folder) => std::fs::create_dir_all(folder)
            .and_then(|()| clap_mangen::generate_to(command, folder))
            .map_err(|error| format!("{}: {error}", folder.display())),
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command)
                .render(&mut page)
                .and_then(|()| std::io::stdout().write_all(&page))
                .map_err(|error| error.to_string())
        }
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: cannot write the manual: {problem}");
            ExitCode::from(1)
        }
    }
}
