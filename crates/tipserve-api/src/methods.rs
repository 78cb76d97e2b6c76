//! Which method needs which role: one total table over every method of every
//! service that the server has. A method that is not in it is not served to
//! callers with tokens; a test holds the table against the descriptors.

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
    /// Also delete.
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

/// A method's rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The service's full name.
    pub service: &'static str,
    /// The method's name.
    pub method: &'static str,
    /// Who may call it.
    pub access: Access,
    /// Whether it changes caches: every such call leaves an audit line.
    pub changes: bool,
}

const CACHES: &str = "tipserve.v1.CacheService";
const CLASSIFY: &str = "tipserve.v1.ClassifyService";
const FINE_TUNES: &str = "tipserve.v1.FineTuneService";
const INFERENCE: &str = "inference.GRPCInferenceService";
const HEALTH: &str = "grpc.health.v1.Health";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";
const REFLECTION_ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

const fn rule(service: &'static str, method: &'static str, access: Access) -> Rule {
    Rule {
        service,
        method,
        access,
        changes: false,
    }
}

const fn reads(service: &'static str, method: &'static str) -> Rule {
    rule(service, method, Access::Needs(Role::Classify))
}

const fn changes(service: &'static str, method: &'static str, role: Role) -> Rule {
    Rule {
        service,
        method,
        access: Access::Needs(role),
        changes: true,
    }
}

const fn open(service: &'static str, method: &'static str) -> Rule {
    rule(service, method, Access::Open)
}

/// Every method of every service.
pub const RULES: &[Rule] = &[
    reads(CLASSIFY, "ClassifyStream"),
    reads(CLASSIFY, "Classify"),
    reads(CLASSIFY, "Embed"),
    reads(CLASSIFY, "Evaluate"),
    reads(CLASSIFY, "GetServerInfo"),
    reads(CACHES, "GetCache"),
    reads(CACHES, "ListCaches"),
    reads(CACHES, "GetVersion"),
    reads(CACHES, "ListVersions"),
    reads(CACHES, "ListExamples"),
    // Takes a whole classifier away, features included.
    rule(CACHES, "ExportVersion", Access::Needs(Role::Write)),
    changes(CACHES, "CreateCache", Role::Write),
    changes(CACHES, "AddExamples", Role::Write),
    changes(CACHES, "ImportVersion", Role::Write),
    changes(CACHES, "SetAlias", Role::Write),
    changes(CACHES, "DeleteAlias", Role::Write),
    changes(CACHES, "DeleteCache", Role::Admin),
    changes(CACHES, "DeleteVersion", Role::Admin),
    changes(CACHES, "PruneVersions", Role::Admin),
    changes(FINE_TUNES, "FineTune", Role::Write),
    changes(FINE_TUNES, "CancelFineTune", Role::Write),
    reads(FINE_TUNES, "ListFineTunes"),
    reads(FINE_TUNES, "GetFineTune"),
    open(INFERENCE, "ServerLive"),
    open(INFERENCE, "ServerReady"),
    open(INFERENCE, "ServerMetadata"),
    reads(INFERENCE, "ModelReady"),
    reads(INFERENCE, "ModelMetadata"),
    reads(INFERENCE, "ModelInfer"),
    reads(INFERENCE, "ModelStreamInfer"),
    reads(INFERENCE, "ModelConfig"),
    reads(INFERENCE, "ModelStatistics"),
    reads(INFERENCE, "RepositoryIndex"),
    reads(INFERENCE, "RepositoryModelLoad"),
    // Not offered: whoever may classify is told so.
    reads(INFERENCE, "RepositoryModelUnload"),
    reads(INFERENCE, "SystemSharedMemoryStatus"),
    reads(INFERENCE, "SystemSharedMemoryRegister"),
    reads(INFERENCE, "SystemSharedMemoryUnregister"),
    reads(INFERENCE, "CudaSharedMemoryStatus"),
    reads(INFERENCE, "CudaSharedMemoryRegister"),
    reads(INFERENCE, "CudaSharedMemoryUnregister"),
    reads(INFERENCE, "TraceSetting"),
    reads(INFERENCE, "LogSettings"),
    open(HEALTH, "Check"),
    open(HEALTH, "Watch"),
    open(HEALTH, "List"),
    reads(REFLECTION, "ServerReflectionInfo"),
    reads(REFLECTION_ALPHA, "ServerReflectionInfo"),
];

/// The rule of a method by its path, "/package.Service/Method".
pub fn rule_of(path: &str) -> Option<&'static Rule> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    RULES
        .iter()
        .find(|rule| rule.service == service && rule.method == method)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::DESCRIPTORS;

    #[test]
    fn every_method_has_one_rule() {
        let sets = [
            DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut paths = HashSet::new();
        for set in sets {
            let set = FileDescriptorSet::decode(set).expect("descriptors");
            for file in set.file {
                for service in &file.service {
                    for method in &service.method {
                        let path =
                            format!("/{}.{}/{}", file.package(), service.name(), method.name());
                        assert!(rule_of(&path).is_some(), "{path} has no rule");
                        paths.insert(path);
                    }
                }
            }
        }
        assert!(paths.len() >= 23 + 2 + 2, "{paths:?}");
        let distinct: HashSet<_> = RULES.iter().map(|r| (r.service, r.method)).collect();
        assert_eq!(distinct.len(), RULES.len(), "a method has two rules");
    }

    #[test]
    fn what_changes_needs_more_than_reading() {
        for rule in RULES.iter().filter(|rule| rule.changes) {
            assert!(rule.access >= Access::Needs(Role::Write), "{rule:?}");
        }
        assert!(rule_of("/tipserve.v1.CacheService/Nothing").is_none());
        assert!(rule_of("tipserve").is_none());
    }
}
