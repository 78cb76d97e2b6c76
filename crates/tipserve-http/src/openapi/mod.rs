//! The API as OpenAPI 3.1, from the same descriptors and routes.

mod schema;

use std::collections::BTreeMap;

use prost_reflect::{DescriptorPool, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use crate::{content::Picture, dialect::Dialect, form::Batch, media::Media, npy, rules::Route};
use schema::{Schemas, comment, reference};

/// How deep query parameters of nested messages are listed.
const DEPTH: usize = 3;

const ABOUT: &str = "Few-shot image classification: CLIP and Tip-Adapter. The same services as over \
    gRPC, for every method of tipserve.v1; docs/http.md says how requests and answers are written.";

/// The document that describes these routes.
pub fn document(pool: &DescriptorPool, routes: &[Route], version: &str) -> Value {
    let mut schemas = Schemas::default();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut named: BTreeMap<String, usize> = BTreeMap::new();
    for route in routes {
        let (path, parameters) = route.template.open_api();
        let verb = route.method.as_str().to_ascii_lowercase();
        let mut operation = operation(route, &parameters, &mut schemas);
        let uses = named.entry(operation_name(route)).or_default();
        *uses += 1;
        let id = match uses {
            1 => operation_name(route),
            more => format!("{}_{more}", operation_name(route)),
        };
        operation.insert("operationId".to_owned(), id.into());
        paths
            .entry(path)
            .or_default()
            .insert(verb, operation.into());
    }
    let status = pool.get_message_by_name("google.rpc.Status");
    let error = status.map_or(json!({}), |status| schemas.of(&status));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "tipserve",
            "version": version,
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "tags": tags(pool),
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {
                "type": "http",
                "scheme": "bearer",
                "description": "A token of the server's tokens file, where it has one.",
            }},
            "responses": {"Error": {
                "description": "What went wrong: a google.rpc.Status.",
                "content": {"application/json": {"schema": error}},
            }},
            "schemas": schemas.finish(),
        },
    })
}

fn operation_name(route: &Route) -> String {
    let name = route.rpc.descriptor.name();
    match route.dialect {
        Dialect::Proto => name.to_owned(),
        Dialect::Inference(_) => format!("Inference{name}"),
        Dialect::Embeddings => "CreateEmbeddings".to_owned(),
    }
}

fn tags(pool: &DescriptorPool) -> Value {
    let services = pool.services().filter(|service| {
        let package = service.package_name();
        package == "tipserve.v1" || package == "inference"
    });
    services
        .map(|service| {
            let said = comment(&service.parent_file(), service.path());
            json!({"name": service.name(), "description": said})
        })
        .collect()
}

fn operation(route: &Route, path: &[String], schemas: &mut Schemas) -> Map<String, Value> {
    let rpc = &route.rpc;
    let said = comment(&rpc.descriptor.parent_file(), rpc.descriptor.path());
    let summary = said.split_inclusive('.').next().unwrap_or_default().trim();
    let mut parameters: Vec<Value> = path
        .iter()
        .map(|name| {
            json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
        })
        .collect();
    let takes_files = Picture::of(&rpc.input).is_some() || Batch::of(&rpc.input).is_some();
    let is_proto = route.dialect == Dialect::Proto;
    if is_proto && (!route.has_body || takes_files || rpc.descriptor.is_client_streaming()) {
        let taken: Vec<&str> = route.template.fields().collect();
        query("", &rpc.input, &taken, DEPTH, schemas, &mut parameters);
    }
    parameters.push(json!({
        "name": "Request-Timeout",
        "in": "header",
        "description": "The call's deadline, in seconds.",
        "schema": {"type": "number", "exclusiveMinimum": 0},
    }));
    let mut operation = Map::new();
    operation.insert(
        "tags".to_owned(),
        json!([rpc.descriptor.parent_service().name()]),
    );
    operation.insert("summary".to_owned(), summary.into());
    operation.insert("description".to_owned(), said.as_str().into());
    operation.insert("parameters".to_owned(), parameters.into());
    if route.has_body {
        operation.insert("requestBody".to_owned(), body(route, schemas));
    }
    operation.insert("responses".to_owned(), responses(route, schemas));
    operation
}

/// The parameters that a message's fields are.
fn query(
    prefix: &str,
    message: &MessageDescriptor,
    taken: &[&str],
    depth: usize,
    schemas: &mut Schemas,
    parameters: &mut Vec<Value>,
) {
    for field in message.fields() {
        let path = format!("{prefix}{}", field.name());
        if taken.contains(&path.as_str()) || field.is_map() {
            continue;
        }
        let name = format!("{}{}", camel_prefix(prefix), field.json_name());
        if let Kind::Message(inner) = field.kind()
            && !inner.full_name().starts_with("google.")
        {
            let is_content = inner.get_field_by_name("encoded_image").is_some();
            if let (Some(depth), false, false) = (depth.checked_sub(1), field.is_list(), is_content)
            {
                query(
                    &format!("{path}."),
                    &inner,
                    taken,
                    depth,
                    schemas,
                    parameters,
                );
            }
            continue;
        }
        if field.kind() == Kind::Bytes {
            continue;
        }
        parameters.push(json!({
            "name": name,
            "in": "query",
            "description": comment(&field.parent_message().parent_file(), field.path()),
            "schema": schemas.value(&field),
        }));
    }
}

/// "config.cache." is written so; the names in between are JSON's.
fn camel_prefix(prefix: &str) -> String {
    let mut made = String::new();
    let mut up = false;
    for letter in prefix.chars() {
        match letter {
            '_' => up = true,
            letter if up => {
                made.push(letter.to_ascii_uppercase());
                up = false;
            }
            letter => made.push(letter),
        }
    }
    made
}

fn body(route: &Route, schemas: &mut Schemas) -> Value {
    let rpc = &route.rpc;
    if route.dialect != Dialect::Proto {
        return json!({"content": {"application/json": {"schema": {"type": "object"}}}});
    }
    let streams = rpc.descriptor.is_client_streaming();
    let message = schemas.of(&rpc.input);
    let kind = match streams {
        true => "application/x-ndjson",
        false => "application/json",
    };
    let mut content = Map::new();
    content.insert(kind.to_owned(), json!({"schema": message}));
    let picture = Picture::of(&rpc.input).filter(|_| !streams);
    let file = rpc.input.get_field_by_name("chunk").is_some();
    if picture.is_some() || file {
        content.insert("application/octet-stream".to_owned(), json!({}));
    }
    if picture.is_some() {
        content.insert("image/*".to_owned(), json!({}));
    }
    if npy::is_taken(&rpc.input) {
        content.insert("application/x-npy".to_owned(), json!({}));
    }
    if picture.is_some() || Batch::of(&rpc.input).is_some() {
        content.insert(
            "multipart/form-data".to_owned(),
            json!({"schema": {"type": "object"}}),
        );
    }
    match streams {
        true => json!({"content": content, "description": "One message a line."}),
        false => json!({"content": content}),
    }
}

fn responses(route: &Route, schemas: &mut Schemas) -> Value {
    let rpc = &route.rpc;
    let schema = match route.dialect {
        Dialect::Proto => schemas.of(&rpc.output),
        _ => json!({}),
    };
    let content = match rpc.descriptor.is_server_streaming() {
        false if Media::of(&rpc.output).is_some() => json!({
            "application/json": {"schema": schema},
            "image/*": {},
        }),
        false => json!({"application/json": {"schema": schema}}),
        true => json!({
            "application/x-ndjson": {"schema": schema},
            "text/event-stream": {"schema": {"type": "string"}},
        }),
    };
    let error = match route.dialect {
        Dialect::Proto => reference("responses", "Error"),
        _ => json!({"description": "What went wrong, as this protocol has it."}),
    };
    json!({
        "200": {"description": "The answer.", "content": content},
        "default": error,
    })
}
