//! `/openapi.json`: the description of every operation, collected from the routers that serve them.
//!
//! [`document`] needs no running server and always answers the same text.

use salvo::oapi::security::{Http, HttpAuthScheme};
use salvo::oapi::{Info, OpenApi, Operation, SecurityScheme, Server, Tag};
use std::collections::BTreeSet;
use tracing::subscriber::NoSubscriber;

/// Names and descriptions of the groups of operations, in the order of the page.
const TAGS: &[(&str, &str)] = &[
    ("auth", "Accounts and tokens."),
    ("user", "The signed-in person."),
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
    let document = OpenApi::with_info(info)
        .add_server(Server::new("/"))
        .add_security_scheme("bearer", SecurityScheme::Http(bearer))
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
    for (path, item) in paths.iter() {
        let mut item = item.clone();
        let path = REST_PARAMETERS
            .iter()
            .fold(path.clone(), |path, (from, to)| path.replace(from, to));
        for operation in item.operations.values_mut() {
            repair_operation(operation, &mut ids);
        }
        document.paths.insert(path, item);
    }
    document
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
