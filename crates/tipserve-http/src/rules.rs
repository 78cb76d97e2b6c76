//! Routes, from the `google.api.http` annotations of the descriptors.

use std::sync::Arc;

use http::{Method, uri::PathAndQuery};
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, Kind, MessageDescriptor, MethodDescriptor, Value,
};
use thiserror::Error;

use crate::{
    dialect::Dialect,
    template::{RequestPath, Template, TemplateError},
};

const EXTENSION: &str = "google.api.http";

/// Why there are no routes: a broken build.
#[derive(Debug, Error)]
pub enum RulesError {
    /// The descriptors cannot be read.
    #[error("the descriptors cannot be read: {0}")]
    Descriptors(String),
    /// A path template does not parse.
    #[error("{method}: {source}")]
    Template {
        /// The RPC that has the annotation.
        method: String,
        /// What the parser says of the template.
        source: TemplateError,
    },
    /// A rule asks for something that is not served.
    #[error("{method}: {problem}")]
    Rule {
        /// The RPC that has the annotation.
        method: String,
        /// What is wrong with the rule.
        problem: &'static str,
    },
}

/// One way to call an RPC over HTTP.
#[derive(Clone, Debug)]
pub struct Route {
    /// The RPC that it calls.
    pub rpc: Arc<Rpc>,
    /// The HTTP method that it answers to.
    pub method: Method,
    /// The paths that it answers to.
    pub template: Template,
    /// Whether there is a body, and all of it is the request.
    pub has_body: bool,
    /// Whether it is the RPC's first.
    pub is_primary: bool,
    /// How requests and answers are written.
    pub dialect: Dialect,
}

/// An RPC, as the descriptors have it.
#[derive(Debug)]
pub struct Rpc {
    /// The method, from the file descriptors.
    pub descriptor: MethodDescriptor,
    /// Its path in gRPC: `/tipserve.v1.CacheService/GetCache`.
    pub path: PathAndQuery,
    /// The message that it takes.
    pub input: MessageDescriptor,
    /// The message that it answers with.
    pub output: MessageDescriptor,
}

impl Rpc {
    /// An RPC of the pool.
    pub fn new(descriptor: MethodDescriptor) -> Result<Rpc, RulesError> {
        let service = descriptor.parent_service().full_name().to_owned();
        let path = format!("/{service}/{}", descriptor.name());
        Ok(Rpc {
            path: PathAndQuery::from_maybe_shared(path).map_err(|_| RulesError::Rule {
                method: descriptor.full_name().to_owned(),
                problem: "its name makes no path",
            })?,
            input: descriptor.input(),
            output: descriptor.output(),
            descriptor,
        })
    }
}

/// The pool of a descriptor set, and of what errors carry as their details.
///
/// # Errors
/// If a set cannot be read.
pub fn pool(descriptors: &[u8]) -> Result<DescriptorPool, RulesError> {
    let unreadable = |error: String| RulesError::Descriptors(error);
    let mut pool = DescriptorPool::decode(descriptors).map_err(|e| unreadable(e.to_string()))?;
    let details = prost_types::FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .map_err(|e| unreadable(e.to_string()))?;
    for file in details.file {
        // Some of them are imported by our own protos, from other paths.
        let known = file.message_type.iter().any(|message| {
            let name = format!("{}.{}", file.package(), message.name());
            pool.get_message_by_name(&name).is_some()
        });
        if !known {
            pool.add_file_descriptor_proto(file)
                .map_err(|e| unreadable(e.to_string()))?;
        }
    }
    Ok(pool)
}

/// All routes of a pool, those of a service in its order.
///
/// # Errors
/// A rule that cannot be served.
pub fn routes(pool: &DescriptorPool) -> Result<Vec<Route>, RulesError> {
    let extension = pool
        .get_extension_by_name(EXTENSION)
        .ok_or_else(|| RulesError::Descriptors(format!("they lack {EXTENSION}")))?;
    let mut routes = Vec::new();
    for method in pool
        .services()
        .flat_map(|s| s.methods().collect::<Vec<_>>())
    {
        let options = method.options();
        if !options.has_extension(&extension) {
            continue;
        }
        let rpc = Arc::new(Rpc::new(method)?);
        if let Value::Message(rule) = options.get_extension(&extension).as_ref() {
            add(&rpc, rule, true, &mut routes)?;
        }
    }
    Ok(routes)
}

fn add(
    rpc: &Arc<Rpc>,
    rule: &DynamicMessage,
    is_primary: bool,
    routes: &mut Vec<Route>,
) -> Result<(), RulesError> {
    let name = || rpc.descriptor.full_name().to_owned();
    let wrong = |problem| RulesError::Rule {
        method: name(),
        problem,
    };
    let text = |field: &str| {
        let value = rule.get_field_by_name(field)?;
        value
            .as_str()
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let (method, template) = [
        (Method::GET, "get"),
        (Method::PUT, "put"),
        (Method::POST, "post"),
        (Method::DELETE, "delete"),
        (Method::PATCH, "patch"),
    ]
    .into_iter()
    .find_map(|(method, field)| Some((method, text(field)?)))
    .ok_or_else(|| wrong("its rule has no path"))?;
    let template = Template::parse(&template).map_err(|source| RulesError::Template {
        method: name(),
        source,
    })?;
    for field in template.fields() {
        let way = crate::query::resolve(&rpc.input, field);
        let is_text = way
            .as_deref()
            .and_then(<[_]>::last)
            .is_some_and(|field| field.kind() == Kind::String && !field.is_list());
        if !is_text {
            return Err(wrong("its path names a field that is no text"));
        }
    }
    let has_body = match text("body").as_deref() {
        None => false,
        Some("*") => true,
        Some(_) => return Err(wrong("its body is one field")),
    };
    if text("response_body").is_some() {
        return Err(wrong("its answer is one field"));
    }
    routes.push(Route {
        rpc: Arc::clone(rpc),
        method,
        template,
        has_body,
        is_primary,
        dialect: Dialect::Proto,
    });
    if let Some(Value::List(more)) = rule.get_field_by_name("additional_bindings").as_deref() {
        for rule in more.iter().filter_map(Value::as_message) {
            add(rpc, rule, false, routes)?;
        }
    }
    Ok(())
}

/// The routes that a request's path fits.
pub fn matching<'a>(
    routes: &'a [Route],
    path: &'a RequestPath,
) -> impl Iterator<Item = (&'a Route, Vec<(&'a str, String)>)> {
    routes
        .iter()
        .filter_map(|route| Some((route, route.template.match_path(path)?)))
}
