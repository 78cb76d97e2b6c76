//! Parsing a command line: blank environment variables count as unset, and
//! commands that call no server neither show nor take the client's flags.

use std::ffi::OsStr;

use clap::{
    Arg, ArgMatches, Command, CommandFactory, FromArgMatches, builder::Resettable,
    error::ErrorKind, parser::ValueSource,
};

/// A command that calls no server, and the global flags (by id) that it takes
/// all the same.
pub type Local = (&'static str, &'static [&'static str]);

/// Parses this process's command line; what is wrong with it ends the process,
/// as does `--help`. `locals` are the commands that call no server.
pub fn parse<P: CommandFactory + FromArgMatches>(locals: &[Local]) -> P {
    let mut command = command::<P>(locals);
    let parsed = command.try_get_matches_from_mut(std::env::args_os());
    let parsed = parsed.and_then(|matches| {
        refuse_client_flags(&mut command, &matches, locals)?;
        P::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    });
    parsed.unwrap_or_else(|error| error.exit())
}

/// The command that [`parse`] parses, for its help and completions.
pub fn command<P: CommandFactory>(locals: &[Local]) -> Command {
    hide_client_flags(without_blank_variables(P::command()), locals)
}

/// The command, reading no variable that is blank: Compose writes
/// `${TIPSERVE_CA:-}` as one.
fn without_blank_variables(command: Command) -> Command {
    let read = |arg: Arg| match arg.get_env().map(is_blank) {
        Some(true) => arg.env(Resettable::Reset),
        _ => arg,
    };
    command
        .mut_args(read)
        .mut_subcommands(without_blank_variables)
}

fn is_blank(name: &OsStr) -> bool {
    std::env::var_os(name)
        .is_some_and(|value| value.to_str().is_some_and(|text| text.trim().is_empty()))
}

/// Gives each command of `locals` hidden flags in place of the global ones,
/// which it then does not inherit.
fn hide_client_flags(command: Command, locals: &[Local]) -> Command {
    let global: Vec<Arg> = command
        .get_arguments()
        .filter(|arg| arg.is_global_set())
        .cloned()
        .collect();
    locals.iter().fold(command, |command, (name, takes)| {
        let hidden = global
            .iter()
            .filter(|arg| !takes.contains(&arg.get_id().as_str()))
            .map(|arg| {
                let arg = arg.clone().hide(true);
                arg.env(Resettable::Reset).default_value(Resettable::Reset)
            });
        command.mut_subcommand(*name, |command| command.args(hidden))
    })
}

fn refuse_client_flags(
    command: &mut Command,
    matches: &ArgMatches,
    locals: &[Local],
) -> Result<(), clap::Error> {
    let Some((name, _)) = matches.subcommand() else {
        return Ok(());
    };
    let Some((_, takes)) = locals.iter().find(|(local, _)| *local == name) else {
        return Ok(());
    };
    let refused = command
        .get_arguments()
        .filter(|arg| arg.is_global_set())
        .find(|arg| {
            let id = arg.get_id().as_str();
            !takes.contains(&id) && matches.value_source(id) == Some(ValueSource::CommandLine)
        })
        .and_then(Arg::get_long);
    match refused {
        None => Ok(()),
        Some(flag) => {
            let text =
                format!("--{flag} is a flag of the commands that call a server, not of {name}");
            Err(command.error(ErrorKind::ArgumentConflict, text))
        }
    }
}
