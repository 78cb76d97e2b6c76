//! Every RPC of the server, in one table: who may call it, whether its calls are
//! audited, what its messages carry, and what metrics call it. A method that is not in the table is not
//! served to callers with tokens; a test holds the table against the
//! descriptors.

use std::fmt;

use serde::Deserialize;

/// What a token may do; each role may do all that the lesser ones may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Classify, embed, evaluate, and look at caches.
    Classify,
    /// Also make versions, set aliases, fine-tune, import and export.
    Write,
    /// Also delete versions and caches.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Classify => "classify",
            Role::Write => "write",
            Role::Admin => "admin",
        })
    }
}

/// What a method asks of its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Nothing: probes have no token.
    Open,
    /// A token with this role or a greater one.
    Needs(Role),
}

/// A method, and what the layers around the services need to know of it.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// The service's full name: `tipserve.v1.CacheService`.
    pub service: &'static str,
    /// The method's name within it: `GetCache`.
    pub name: &'static str,
    /// Who may call it, once a server has tokens.
    pub access: Access,
    /// What audit lines call it; none if its calls leave none. Everything that
    /// changes a cache is audited, and so is what takes one away.
    pub audit: Option<&'static str>,
    /// Whether its messages carry pictures, embeddings or files. All other
    /// messages are small.
    pub content: bool,
    /// Whether a client may send many messages.
    pub streams: bool,
    /// Whether its one answer is as large as what is stored, however small its
    /// request: a page, a list, a version.
    large_answer: bool,
    /// Whether it is served at all. Some of the Open Inference Protocol's are
    /// not: callers who may classify are told so.
    pub offered: bool,
}

/// The metrics' name for calls of methods that are unknown, not offered, or
/// infrastructure.
pub const OTHER: &str = "other";

impl Method {
    const fn content(mut self) -> Method {
        self.content = true;
        self
    }

    const fn streams(mut self) -> Method {
        self.streams = true;
        self
    }

    const fn large_answer(mut self) -> Method {
        self.large_answer = true;
        self
    }

    /// Whether its one answer is as large as what is stored, however small its
    /// request: a page, a list, a version.
    pub fn has_large_answer(&self) -> bool {
        self.large_answer
    }

    /// The method's name as the value of the metrics' label `method`.
    pub fn label(&self) -> &'static str {
        if self.offered && !self.service.starts_with("grpc.") {
            self.name
        } else {
            OTHER
        }
    }
}

const CACHES: &str = "tipserve.v1.CacheService";
const CLASSIFY: &str = "tipserve.v1.ClassifyService";
const FINE_TUNES: &str = "tipserve.v1.FineTuneService";
const BUNDLES: &str = "tipserve.v1.BundleService";
const ANALYSIS: &str = "tipserve.v1.AnalysisService";
const INFERENCE: &str = "inference.GRPCInferenceService";
const HEALTH: &str = "grpc.health.v1.Health";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";
const REFLECTION_ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

const fn method(service: &'static str, name: &'static str, access: Access) -> Method {
    Method {
        service,
        name,
        access,
        audit: None,
        content: false,
        streams: false,
        large_answer: false,
        offered: true,
    }
}

const fn reads(service: &'static str, name: &'static str) -> Method {
    method(service, name, Access::Needs(Role::Classify))
}

const fn audited(
    service: &'static str,
    name: &'static str,
    role: Role,
    action: &'static str,
) -> Method {
    let mut method = method(service, name, Access::Needs(role));
    method.audit = Some(action);
    method
}

const fn open(service: &'static str, name: &'static str) -> Method {
    method(service, name, Access::Open)
}

const fn not_offered(service: &'static str, name: &'static str) -> Method {
    let mut method = reads(service, name);
    method.offered = false;
    method
}

/// Every method of every service.
pub const METHODS: &[Method] = &[
    reads(CLASSIFY, "ClassifyStream").content().streams(),
    reads(CLASSIFY, "Classify").content(),
    reads(CLASSIFY, "Embed").content(),
    reads(CLASSIFY, "Evaluate").content().streams(),
    reads(CLASSIFY, "GetServerInfo"),
    reads(CACHES, "GetCache").large_answer(),
    reads(CACHES, "ListCaches").large_answer(),
    reads(CACHES, "GetVersion").large_answer(),
    reads(CACHES, "ListVersions").large_answer(),
    reads(CACHES, "ListExamples").large_answer(),
    reads(CACHES, "GetExamplePicture").large_answer(),
    // Takes a whole classifier away, features included.
    audited(CACHES, "ExportVersion", Role::Write, "export_version"),
    audited(CACHES, "CreateCache", Role::Write, "create_cache")
        .content()
        .streams(),
    audited(CACHES, "AddExamples", Role::Write, "add_examples")
        .content()
        .streams(),
    audited(CACHES, "ImportVersion", Role::Write, "import_version")
        .content()
        .streams(),
    // Both answer with the cache, and so with all of its classes.
    audited(CACHES, "SetAlias", Role::Write, "set_alias").large_answer(),
    audited(CACHES, "DeleteAlias", Role::Write, "delete_alias").large_answer(),
    audited(CACHES, "DeleteCache", Role::Admin, "delete_cache"),
    audited(CACHES, "DeleteVersion", Role::Admin, "delete_version"),
    audited(CACHES, "PruneVersions", Role::Admin, "prune_versions"),
    audited(FINE_TUNES, "FineTune", Role::Write, "start_finetune"),
    audited(FINE_TUNES, "CancelFineTune", Role::Write, "cancel_finetune"),
    reads(FINE_TUNES, "ListFineTunes").large_answer(),
    reads(FINE_TUNES, "GetFineTune").large_answer(),
    reads(ANALYSIS, "SuggestExamples").content().streams(),
    reads(ANALYSIS, "AnalyzeVersion"),
    reads(ANALYSIS, "GetDrift").large_answer(),
    reads(BUNDLES, "ListBundles").large_answer(),
    audited(BUNDLES, "LoadBundle", Role::Admin, "load_bundle"),
    audited(BUNDLES, "UnloadBundle", Role::Admin, "unload_bundle"),
    open(INFERENCE, "ServerLive"),
    open(INFERENCE, "ServerReady"),
    open(INFERENCE, "ServerMetadata"),
    reads(INFERENCE, "ModelReady"),
    reads(INFERENCE, "ModelMetadata").large_answer(),
    reads(INFERENCE, "ModelInfer").content(),
    reads(INFERENCE, "ModelStreamInfer").content().streams(),
    reads(INFERENCE, "ModelConfig").large_answer(),
    reads(INFERENCE, "ModelStatistics").large_answer(),
    reads(INFERENCE, "RepositoryIndex").large_answer(),
    reads(INFERENCE, "RepositoryModelLoad"),
    audited(
        INFERENCE,
        "RepositoryModelUnload",
        Role::Admin,
        "unload_model",
    ),
    not_offered(INFERENCE, "SystemSharedMemoryStatus"),
    not_offered(INFERENCE, "SystemSharedMemoryRegister"),
    not_offered(INFERENCE, "SystemSharedMemoryUnregister"),
    not_offered(INFERENCE, "CudaSharedMemoryStatus"),
    not_offered(INFERENCE, "CudaSharedMemoryRegister"),
    not_offered(INFERENCE, "CudaSharedMemoryUnregister"),
    not_offered(INFERENCE, "TraceSetting"),
    not_offered(INFERENCE, "LogSettings"),
    open(HEALTH, "Check"),
    open(HEALTH, "Watch"),
    open(HEALTH, "List"),
    reads(REFLECTION, "ServerReflectionInfo").streams(),
    reads(REFLECTION_ALPHA, "ServerReflectionInfo").streams(),
];

/// A method by the path of its requests, "/package.Service/Method".
pub fn find(path: &str) -> Option<&'static Method> {
    let (service, name) = path.strip_prefix('/')?.split_once('/')?;
    METHODS
        .iter()
        .find(|method| method.service == service && method.name == name)
}

/// All values of the metrics' label `method`.
pub fn labels() -> impl Iterator<Item = &'static str> {
    METHODS
        .iter()
        .map(Method::label)
        .filter(|label| *label != OTHER)
        .chain([OTHER])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::DESCRIPTORS;

    /// The paths of all methods that the descriptors have.
    fn described() -> HashSet<String> {
        let sets = [
            DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut paths = HashSet::new();
        for set in sets {
            let set = FileDescriptorSet::decode(set).expect("descriptors");
            for file in &set.file {
                for service in &file.service {
                    let service_name = format!("{}.{}", file.package(), service.name());
                    let methods = service.method.iter();
                    paths.extend(methods.map(|m| format!("/{service_name}/{}", m.name())));
                }
            }
        }
        paths
    }

    #[test]
    fn the_table_has_every_method_of_the_descriptors_once_and_no_other() {
        let listed: Vec<String> = METHODS
            .iter()
            .map(|method| format!("/{}/{}", method.service, method.name))
            .collect();
        let distinct: HashSet<String> = listed.iter().cloned().collect();
        assert_eq!(distinct.len(), listed.len(), "a method is listed twice");
        let described = described();
        let missing: Vec<_> = described.difference(&distinct).collect();
        assert!(missing.is_empty(), "not listed: {missing:?}");
        // Newer than the descriptors that tonic-health carries.
        let beyond: Vec<_> = distinct.difference(&described).collect();
        assert!(
            beyond
                .iter()
                .all(|path| *path == "/grpc.health.v1.Health/List"),
            "no such methods: {beyond:?}"
        );
        for path in &listed {
            assert!(find(path).is_some(), "{path}");
        }
    }

    /// Methods whose answers are small, whatever is stored, and AnalyzeVersion,
    /// which waits for its turn to compute and is answered at once then.
    const SMALL_ANSWERS: [&str; 11] = [
        "GetServerInfo",
        "AnalyzeVersion",
        "ModelReady",
        "RepositoryModelLoad",
        "RepositoryModelUnload",
        "DeleteCache",
        "DeleteVersion",
        "PruneVersions",
        "LoadBundle",
        "UnloadBundle",
        "CancelFineTune",
    ];

    #[test]
    fn every_method_that_answers_once_with_what_is_stored_takes_space_for_it() {
        let set = FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors");
        for file in &set.file {
            for service in &file.service {
                for described in &service.method {
                    let name = described.name();
                    let path = format!("/{}.{}/{name}", file.package(), service.name());
                    let method = find(&path).expect("listed");
                    // Those with content take as much as they need for theirs.
                    let asks = method.offered && method.access != Access::Open && !method.content;
                    let large =
                        asks && !described.server_streaming() && !SMALL_ANSWERS.contains(&name);
                    assert_eq!(method.has_large_answer(), large, "{path}");
                }
            }
        }
    }

    #[test]
    fn metric_labels_are_distinct_and_hold_every_method_that_is_offered() {
        let all: Vec<_> = labels().collect();
        let distinct: HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len(), "two methods share a label");
        for method in METHODS {
            assert!(distinct.contains(&method.label()), "{method:?}");
        }
        // Of `tipserve.v1` all are offered.
        for path in described() {
            let method = find(&path).expect("listed");
            assert!(method.offered || method.service == INFERENCE, "{path}");
        }
    }

    #[test]
    fn what_needs_more_than_reading_is_audited() {
        for method in METHODS {
            let privileged = method.access > Access::Needs(Role::Classify);
            assert_eq!(privileged, method.audit.is_some(), "{method:?}");
        }
        let actions: Vec<_> = METHODS.iter().filter_map(|method| method.audit).collect();
        let distinct: HashSet<_> = actions.iter().collect();
        assert_eq!(distinct.len(), actions.len(), "two methods share an action");
        assert!(find("/tipserve.v1.CacheService/Nothing").is_none());
        assert!(find("tipserve").is_none());
    }
}
