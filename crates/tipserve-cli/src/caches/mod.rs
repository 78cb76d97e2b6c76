//! `tipserve caches …`: caches, their versions and aliases.

use std::path::PathBuf;

use clap::Subcommand;

use super::{
    Global,
    about::ConditionArgs,
    connect::Connection,
    failure::{Completion, Failure},
    screen::Screen,
};

mod alias;
mod delete;
mod export;
mod import;
mod list;
mod pages;
mod show;

/// `tipserve caches …`.
#[derive(Clone, Debug, Subcommand)]
pub enum CachesCommand {
    /// List caches: all, or those that match a filter.
    #[command(after_help = "\
Examples:
  tipserve caches list
  tipserve caches list --filter 'labels.team = \"weaving\" AND class_count > 2'

The filter joins restrictions by AND. Fields: cache_id, create_time, and of the
newest version description, created_by, method, bundle_fingerprint, class_count,
key_count, labels.KEY. Operators: = != < <= > >= and \":\" (contains; labels:KEY:
has the label). With = a value may begin or end in *.")]
    List {
        /// Which caches to list.
        #[arg(
            long,
            value_name = "EXPR",
            default_value = "",
            hide_default_value = true
        )]
        filter: String,
    },
    /// Show a version in full: where it comes from, classes, head, and how it
    /// was chosen.
    #[command(after_help = "\
Examples:
  tipserve caches show pets
  tipserve caches show pets@stable --json")]
    Show {
        /// CACHE (its newest version, its aliases and its etag), CACHE@VERSION
        /// or CACHE@ALIAS.
        #[arg(value_name = "CACHE[@VERSION|@ALIAS]")]
        cache: String,
    },
    /// List a cache's versions, newest first.
    #[command(after_help = "Example:\n  tipserve caches versions pets")]
    Versions {
        /// The cache.
        cache: String,
    },
    /// List a version's examples: training examples in the order of their keys,
    /// then validation examples, then those of no class.
    #[command(after_help = "\
Examples:
  tipserve caches examples pets
  tipserve caches examples pets@3 --filter 'display_name = \"cat\" AND validation = false'

Fields: example_id, class_index, display_name, validation, unknown; else as for list.")]
    Examples {
        /// The version.
        #[arg(value_name = "CACHE[@VERSION|@ALIAS]")]
        cache: String,
        /// Which examples to list.
        #[arg(
            long,
            value_name = "EXPR",
            default_value = "",
            hide_default_value = true
        )]
        filter: String,
    },
    /// Point an alias at a version.
    #[command(after_help = "Example:\n  tipserve caches alias pets stable 3")]
    Alias {
        /// The cache.
        cache: String,
        /// The alias: "stable".
        alias: String,
        /// The version's number.
        #[arg(value_parser = clap::value_parser!(i64).range(1..))]
        version: i64,
        #[command(flatten)]
        condition: ConditionArgs,
    },
    /// Remove an alias. Its version stays.
    #[command(after_help = "Example:\n  tipserve caches unalias pets stable")]
    Unalias {
        /// The cache.
        cache: String,
        /// The alias.
        alias: String,
        #[command(flatten)]
        condition: ConditionArgs,
    },
    /// Point an alias at the version before the one that it points at now.
    #[command(after_help = "\
Example:
  tipserve caches rollback pets stable

Fails with exit code 6, and changes nothing, if somebody else changes the cache
meanwhile.")]
    Rollback {
        /// The cache.
        cache: String,
        /// The alias.
        alias: String,
        #[command(flatten)]
        condition: ConditionArgs,
    },
    /// Delete a cache with all its versions and aliases, or one version.
    #[command(after_help = "\
Examples:
  tipserve caches delete pets
  tipserve caches delete pets@7 --yes")]
    Delete {
        /// CACHE, or CACHE@VERSION for that version alone.
        #[arg(value_name = "CACHE[@VERSION]")]
        cache: String,
        /// Do not ask for confirmation.
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        condition: ConditionArgs,
    },
    /// Delete old versions: all but the newest ones and those that an alias
    /// points at.
    #[command(after_help = "\
Examples:
  tipserve caches prune pets --keep 5 --dry-run
  tipserve caches prune pets --keep 5")]
    Prune {
        /// The cache.
        cache: String,
        /// How many of the newest versions stay.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        keep: i32,
        /// Only print which versions would be deleted.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        condition: ConditionArgs,
    },
    /// Write a version into one safetensors file.
    #[command(after_help = "\
Examples:
  tipserve caches export pets@stable pets.safetensors
  tipserve caches export pets - | gzip > pets.safetensors.gz")]
    Export {
        /// The version.
        #[arg(value_name = "CACHE[@VERSION|@ALIAS]")]
        cache: String,
        /// The file to write; - is standard output.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Replace the file if it exists.
        #[arg(long)]
        force: bool,
    },
    /// Make a version from an exported file.
    #[command(after_help = "\
Examples:
  tipserve caches import pets.safetensors pets
  tipserve caches import pets.safetensors copy --if-etag new   # only if there is none yet")]
    Import {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The cache that gets the version; it need not be the one exported.
        cache: String,
        /// Accept a version whose features another bundle made: it is stored, but
        /// not served.
        #[arg(long)]
        allow_other_bundle: bool,
        #[command(flatten)]
        condition: ConditionArgs,
    },
}

pub async fn run(
    command: CachesCommand,
    global: &Global,
    screen: &Screen,
) -> Result<Completion, Failure> {
    // What is wrong on this side is reported before the server is asked.
    match &command {
        CachesCommand::Delete { cache, yes, .. } => delete::check(cache, *yes)?,
        CachesCommand::Export { file, force, .. } => export::check(file, *force, screen)?,
        _ => {}
    }
    let connection = &Connection::open(global).await?;
    match command {
        CachesCommand::List { filter } => list::caches(connection, filter, screen).await?,
        CachesCommand::Versions { cache } => list::versions(connection, &cache, screen).await?,
        CachesCommand::Examples { cache, filter } => {
            list::examples(connection, &cache, filter, screen).await?;
        }
        CachesCommand::Show { cache } => show::show(connection, &cache, screen).await?,
        CachesCommand::Alias {
            cache,
            alias,
            version,
            condition,
        } => alias::set(connection, cache, alias, version, condition, screen).await?,
        CachesCommand::Unalias {
            cache,
            alias,
            condition,
        } => alias::remove(connection, cache, alias, condition, screen).await?,
        CachesCommand::Rollback {
            cache,
            alias,
            condition,
        } => alias::roll_back(connection, cache, alias, condition, screen).await?,
        CachesCommand::Delete {
            cache, condition, ..
        } => delete::delete(connection, cache, condition, screen).await?,
        CachesCommand::Prune {
            cache,
            keep,
            dry_run,
            condition,
        } => delete::prune(connection, cache, keep, dry_run, condition, screen).await?,
        CachesCommand::Export { cache, file, force } => {
            export::export(connection, &cache, &file, force, screen).await?;
        }
        CachesCommand::Import {
            file,
            cache,
            allow_other_bundle,
            condition,
        } => {
            let options = import::ImportOptions {
                cache,
                allow_other_bundle,
                etag: condition.if_etag,
            };
            import::import(connection, &file, options, screen).await?;
        }
    }
    Ok(Completion::Done)
}
