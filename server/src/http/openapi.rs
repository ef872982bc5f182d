//! `/openapi.json`: the description of every operation, collected from the routers that serve them.
//!
//! [`document`] needs no running server and always answers the same text.

use salvo::http::Method;
use salvo::oapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement};
use salvo::oapi::{Info, OpenApi, Operation, PathItemType, SecurityScheme, Server, Tag};
use std::collections::BTreeSet;
use tracing::subscriber::NoSubscriber;

use super::scopes;

/// Names and descriptions of the groups of operations. `page.js` has their order.
const TAGS: &[(&str, &str)] = &[
    ("auth", "Accounts and tokens."),
    ("user", "The signed-in person."),
    ("keys", "API keys, for programs."),
    ("credits", "Balance and statement. Credits are integers."),
    ("projects", "Folders for generations."),
    ("async generations", "Submit, watch, cancel: the main job."),
    (
        "generations",
        "The same generations as a collection, with forms and uploads.",
    ),
    ("models", "What can be generated and what it costs."),
    ("outputs", "Delivered files behind signed URLs."),
    ("webhooks", "For providers."),
    (
        "operator",
        "For operators: people, credits, open cases, redeem codes, pauses, the audit.",
    ),
    ("system", "Health, version, metrics and this document."),
];

/// Paths as the router writes them and as a reader expects them: the router's names tell routes apart that OpenAPI
/// tells apart by their text.
const REST_PARAMETERS: &[(&str, &str)] = &[
    ("{**priced_model}", "{model_id}/pricing"),
    ("{**model_id}", "{model_id}"),
    ("{**key}", "{key}"),
];

/// The whole document.
pub fn document() -> OpenApi {
    let info = Info::new("Velro", env!("CARGO_PKG_VERSION")).description(
        "Generate images and videos with many models through one API, and pay exactly once for what was delivered.\n\n\
         Errors are problem documents (RFC 9457): `detail` says what to fix, `code` is for programs, `request_id` finds \
         the log line. Every path may end with a slash or not.",
    );
    let bearer = Http::new(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description("The access_token of register, login or refresh.");
    let key = ApiKeyValue::with_description(
        "x-api-key",
        "A key of `/api/v1/keys` with one of the scopes named here; also taken as `Authorization: Bearer` or \
         `Authorization: Key`.",
    );
    let key = ApiKey::Header(key);
    let document = OpenApi::with_info(info)
        .add_server(Server::new("/"))
        .add_security_scheme("bearer", SecurityScheme::Http(bearer))
        .add_security_scheme("api_key", SecurityScheme::ApiKey(key))
        .tags(TAGS.iter().map(|(name, text)| Tag::new(*name).description(*text)));
    // The merge warns about the names that `REST_PARAMETERS` repairs below.
    let document =
        tracing::subscriber::with_default(NoSubscriber::default(), || document.merge_router(&super::router()));
    repair(document)
}

/// Writes paths as readers expect them, drops what the merge doubles, and gives every operation a short unique id.
fn repair(mut document: OpenApi) -> OpenApi {
    let mut ids = BTreeSet::new();
    let paths = std::mem::take(&mut document.paths);
    for (routed, item) in paths.iter() {
        let mut item = item.clone();
        let path = REST_PARAMETERS
            .iter()
            .fold(routed.clone(), |path, (from, to)| path.replace(from, to));
        for (method, operation) in item.operations.iter_mut() {
            name_scopes(method, routed, operation);
            repair_operation(operation, &mut ids);
        }
        document.paths.insert(path, item);
    }
    document
}

/// Adds the API key where one is taken, with the scopes of which any is enough, and the answer to one that has none of them.
fn name_scopes(method: &PathItemType, path: &str, operation: &mut Operation) {
    let method = match method {
        PathItemType::Get => Method::GET,
        PathItemType::Post => Method::POST,
        PathItemType::Put => Method::PUT,
        PathItemType::Patch => Method::PATCH,
        PathItemType::Delete => Method::DELETE,
        _ => return,
    };
    let scopes = scopes::of(&method, path);
    let Some(securities) = operation.securities.as_mut() else {
        return;
    };
    securities.extend(
        scopes
            .iter()
            .map(|scope| SecurityRequirement::new("api_key", [scope.as_str()])),
    );
    if let Some(refusal) = operation.responses.get("401").cloned() {
        operation.responses.entry("403".to_owned()).or_insert(refusal);
    }
}

fn repair_operation(operation: &mut Operation, ids: &mut BTreeSet<String>) {
    let name = operation.operation_id.take().unwrap_or_default();
    let short = name.rsplit(['.', ':']).next().unwrap_or(&name).to_owned();
    let mut id = short.clone();
    let mut n = 1;
    while !ids.insert(id.clone()) {
        n += 1;
        id = format!("{short}_{n}");
    }
    operation.operation_id = Some(id);
    if let Some(securities) = &mut operation.securities {
        securities.dedup();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use serde_json::Value;

    fn operations() -> Vec<(String, String, Value)> {
        let document: Value = serde_json::from_str(&document().to_json().unwrap()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let of_path = |(path, item): (&String, &Value)| {
            let operations = item.as_object().unwrap().iter();
            operations
                .map(|(method, operation)| (path.clone(), method.clone(), operation.clone()))
                .collect::<Vec<_>>()
        };
        paths.iter().flat_map(of_path).collect()
    }

    #[test]
    fn the_document_is_the_same_each_time() {
        assert_eq!(document().to_json().unwrap(), document().to_json().unwrap());
    }

    #[test]
    fn every_operation_is_described() {
        let mut ids = BTreeSet::new();
        for (path, method, operation) in operations() {
            let which = format!("{method} {path}");
            assert!(
                ids.insert(operation["operationId"].as_str().unwrap().to_owned()),
                "{which}"
            );
            assert!(operation["summary"].as_str().is_some_and(|s| !s.is_empty()), "{which}");
            let tags = operation["tags"].as_array().unwrap();
            assert_eq!(tags.len(), 1, "{which}");
            assert!(TAGS.iter().any(|(name, _)| tags[0] == *name), "{which}: {}", tags[0]);
            let responses = operation["responses"].as_object().unwrap();
            // 501: planned, and documented as such.
            let answers = |status: &String| status.starts_with(['2', '3']) || status == "501";
            assert!(responses.keys().any(answers), "{which}");
            if !operation["security"].is_null() {
                assert_eq!(operation["security"][0], serde_json::json!({ "bearer": [] }), "{which}");
                assert!(responses.contains_key("401"), "{which}");
            }
        }
    }

    #[test]
    fn every_placeholder_of_a_path_is_a_parameter_and_the_other_way_round() {
        for (path, method, operation) in operations() {
            let placeholders: BTreeSet<_> = path
                .split('{')
                .skip(1)
                .map(|rest| rest.split('}').next().unwrap().to_owned())
                .collect();
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let described: BTreeSet<_> = parameters
                .filter(|p| p["in"] == "path")
                .map(|p| p["name"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(placeholders, described, "{method} {path}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let text = document().to_json().unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
