//! `tipserve bundles …`: the models that a server serves.

use clap::Subcommand;

use crate::{
    connect::Connection,
    documents::LoadedBundleDocument,
    failure::{Completion, Failure},
    global::Global,
    screen::{Screen, table},
};
use tipserve_api::v1::{ListBundlesRequest, LoadBundleRequest, UnloadBundleRequest};

/// `tipserve bundles …`.
#[derive(Clone, Debug, Subcommand)]
pub enum BundlesCommand {
    /// List the bundles that are loaded, and those that could be.
    List,
    /// Load a bundle; returns when it serves.
    Load {
        /// Name of its folder on the server, as `list` shows it.
        folder: String,
        /// Let it serve requests that name no bundle from now on.
        #[arg(long)]
        default: bool,
    },
    /// Unload a bundle; returns when all that it was given is answered.
    Unload {
        /// Its name or fingerprint.
        bundle: String,
    },
}

/// What `bundles list --json` prints.
#[derive(serde::Serialize)]
struct BundlesDocument {
    bundles: Vec<LoadedBundleDocument>,
}

#[derive(serde::Serialize)]
struct UnloadedDocument {
    unloaded: String,
}

pub async fn run(
    command: BundlesCommand,
    global: &Global,
    screen: &Screen,
) -> Result<Completion, Failure> {
    let connection = Connection::open(global).await?;
    let mut client = connection.bundles();
    match command {
        BundlesCommand::List => {
            let call = client.list_bundles(ListBundlesRequest {});
            let listed = connection.unary("listing bundles", call).await?;
            let bundles = listed.bundles.into_iter();
            list(screen, bundles.map(LoadedBundleDocument::from).collect())?;
        }
        BundlesCommand::Load { folder, default } => {
            let doing = format!("loading {folder:?}");
            let call = client.load_bundle(LoadBundleRequest {
                folder,
                make_default: default,
            });
            let loaded = connection.lasting(&doing, call).await?;
            let loaded = LoadedBundleDocument::from(loaded);
            if screen.json {
                screen.document(&loaded)?;
            } else {
                screen.line(&format!("{} serves ({})", loaded.name, loaded.fingerprint))?;
            }
        }
        BundlesCommand::Unload { bundle } => {
            let doing = format!("unloading {bundle:?}");
            let unloaded = bundle.clone();
            let call = client.unload_bundle(UnloadBundleRequest { bundle });
            connection.lasting(&doing, call).await?;
            if screen.json {
                screen.document(&UnloadedDocument { unloaded })?;
            } else {
                screen.line(&format!("unloaded {unloaded}"))?;
            }
        }
    }
    Ok(Completion::Done)
}

fn list(screen: &Screen, bundles: Vec<LoadedBundleDocument>) -> Result<(), Failure> {
    if screen.json {
        return screen.document(&BundlesDocument { bundles });
    }
    let rows = bundles.into_iter().map(|bundle| {
        let state = match bundle.is_default {
            true => format!("{} (default)", bundle.state),
            false => bundle.state,
        };
        let device = match bundle.device.is_empty() {
            true => String::new(),
            false => format!("{} ({})", bundle.device, bundle.dtype),
        };
        // Not known of a bundle that is not loaded.
        let statistics = match (device.is_empty(), bundle.feature_statistics) {
            (true, _) => "",
            (false, true) => "yes",
            (false, false) => "no",
        };
        vec![
            bundle.folder,
            bundle.name,
            state,
            device,
            statistics.to_owned(),
            bundle.in_flight_items.to_string(),
            bundle.fingerprint,
        ]
    });
    let headers = [
        "folder",
        "name",
        "state",
        "device",
        "statistics",
        "items",
        "fingerprint",
    ];
    screen.line(&table(&headers, &[5], rows.collect()))
}
