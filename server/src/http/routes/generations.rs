//! `/api/v1/generations` and `/generations`: create by form or JSON, list, detail, delete, favourite, statistics, media
//! URLs and quote (contract §5d, design §7). The same lifecycle as the asynchronous routes.

use salvo::oapi::{ToSchema, endpoint};
use salvo::prelude::Json;
use salvo::{Depot, Request, Response, Router, Writer as _};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

use super::call::{self, CallBody};
use super::create_body::CreateCall;
use super::generation_view::{GenerationObject, output_urls};
use super::submissions::{mark_replayed, missing};
use crate::clock;
use crate::http::hoops::authenticated;
use crate::http::input::{Query, json, path_id, services};
use crate::http::limits::{Policy, limit};
use crate::http::problem::{Code, Problem, Result};
use crate::http::scopes::check_model;
use crate::http::{Caller, Services};
use crate::id::{GenerationId, ProjectId};
use crate::store::{Deleted, GenerationFilter, GenerationStats};

/// Routes below `/api/v1/generations` and `/generations`.
pub fn router() -> Router {
    Router::new()
        .hoop(authenticated)
        .push(Router::new().hoop(limit(Policy::Submit)).post(create_generation))
        .push(
            Router::new()
                .hoop(limit(Policy::Api))
                .get(list_generations)
                .push(Router::with_path("stats").get(generation_stats))
                .push(Router::with_path("quote").post(quote_generation))
                .push(
                    Router::with_path("{generation_id}")
                        .get(get_generation)
                        .delete(delete_generation)
                        .push(Router::with_path("favorite").post(favorite_generation))
                        .push(Router::with_path("media-urls").get(generation_media_urls)),
                ),
        )
}

/// Create a generation
///
/// The same as `POST /api/v1/generations/async/submit`, for forms too: `parameters` is then a JSON object as text, and a
/// `reference_image` file may be uploaded instead of giving its URL. Answers at once; the generation is `pending`.
#[endpoint(
    tags("generations"),
    parameters(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "Makes a repeated create harmless; tied to your account and to the body.")),
    status_codes(200, 400, 401, 402, 403, 404, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn create_generation(
    create: CreateCall,
    req: &mut Request,
    depot: &mut Depot,
    res: &mut Response,
) -> Result<Json<GenerationObject>> {
    let services = services(depot)?;
    let caller = Caller::of(depot)?;
    let key = call::idempotency_key(req, &create.call)?;
    let call = create.stored(services, caller).await?;
    let accepted = call.submit(services, caller, key).await?;
    mark_replayed(res, &accepted);
    Ok(Json(GenerationObject::of(
        &accepted.generation,
        &services.outputs,
        clock::now(),
    )))
}

/// Your generations
///
/// Newest first.
#[endpoint(
    tags("generations"),
    parameters(
        ("skip" = Option<i64>, Query, minimum = 0, description = "How many to leave out; 0 by default."),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "How many; 50 by default."),
        ("project_id" = Option<String>, Query, format = "uuid", description = "Only those of this project."),
    ),
    status_codes(200, 401, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn list_generations(req: &mut Request, depot: &mut Depot) -> Result<Json<Vec<GenerationObject>>> {
    let services = services(depot)?;
    let caller = Caller::of(depot)?;
    let query = Query::of(req);
    let filter = GenerationFilter {
        project_id: project_of(&query)?,
        status: None,
        skip: query.integer("skip", 0, 0, i64::MAX)? as u64,
        limit: query.integer("limit", 50, 1, 100)? as u32,
    };
    let page = services.store.generations(caller.user_id, filter).await?;
    let now = clock::now();
    let objects = page
        .items
        .iter()
        .map(|g| GenerationObject::of(g, &services.outputs, now));
    Ok(Json(objects.collect()))
}

fn project_of(query: &Query) -> Result<Option<ProjectId>> {
    query.parsed("project_id", "must be a UUID", |text| text.parse().ok())
}

/// Counts over a user's generations.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[salvo(schema(name = "GenerationStats"))]
struct StatsAnswer {
    total_generations: u64,
    completed_generations: u64,
    failed_generations: u64,
    /// Pending and processing.
    processing_generations: u64,
    favorite_generations: u64,
    total_credits_used: i64,
    /// Percent of all that are completed, two decimals.
    success_rate: f64,
    /// By media type.
    type_breakdown: BTreeMap<String, u64>,
    /// By model.
    model_breakdown: BTreeMap<String, u64>,
}

/// Statistics of your generations
#[endpoint(
    tags("generations"),
    parameters(("project_id" = Option<String>, Query, format = "uuid", description = "Only those of this project.")),
    status_codes(200, 401, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn generation_stats(req: &mut Request, depot: &mut Depot) -> Result<Json<StatsAnswer>> {
    let services = services(depot)?;
    let caller = Caller::of(depot)?;
    let project = project_of(&Query::of(req))?;
    let stats = services.store.generation_stats(caller.user_id, project).await?;
    Ok(Json(stats_answer(stats)))
}

fn stats_answer(stats: GenerationStats) -> StatsAnswer {
    let success_rate = match stats.total {
        0 => 0.0,
        total => (stats.completed as f64 * 10_000.0 / total as f64).round() / 100.0,
    };
    StatsAnswer {
        total_generations: stats.total,
        completed_generations: stats.completed,
        failed_generations: stats.failed,
        processing_generations: stats.unfinished,
        favorite_generations: stats.favorites,
        total_credits_used: stats.captured.0,
        success_rate,
        type_breakdown: stats.by_media_type,
        model_breakdown: stats.by_model,
    }
}

/// One generation
#[endpoint(
    tags("generations"),
    parameters(("generation_id" = String, Path, format = "uuid")),
    status_codes(200, 401, 404, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn get_generation(req: &mut Request, depot: &mut Depot) -> Result<Json<GenerationObject>> {
    let services = services(depot)?;
    let caller = Caller::of(depot)?;
    let id: GenerationId = path_id(req, "generation_id")?;
    let generation = services
        .store
        .generation(caller.user_id, id)
        .await?
        .ok_or_else(missing)?;
    Ok(Json(GenerationObject::of(&generation, &services.outputs, clock::now())))
}

/// A sentence.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[salvo(schema(name = "Message"))]
struct Message {
    message: String,
}

/// Delete a generation
///
/// Removes it from every list and its files from the storage; the credit statement keeps its lines. What still runs must
/// be cancelled first.
#[endpoint(
    tags("generations"),
    parameters(("generation_id" = String, Path, format = "uuid")),
    status_codes(200, 401, 404, 409, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn delete_generation(req: &mut Request, depot: &mut Depot) -> Result<Json<Message>> {
    let services = services(depot)?;
    let caller = Caller::of(depot)?;
    let id: GenerationId = path_id(req, "generation_id")?;
    match services
        .store
        .delete_generation(caller.user_id, id, clock::now())
        .await?
    {
        Deleted::Missing => Err(missing()),
        Deleted::Unfinished(status) => Err(Problem::new(
            Code::Conflict,
            format!("The generation is {}; cancel it first", status.as_str()),
        )),
        Deleted::Done(files) => {
            let keys: Vec<_> = files.into_iter().map(|f| f.key).collect();
            if let Err(error) = services.outputs.remove(&keys).await {
                // Nobody can reach them any more: their URLs are told to nobody. Only the disk remembers.
                tracing::warn!(generation_id = %id, error = %error, "files of a deleted generation were not removed");
            }
            Ok(Json(Message {
                message: "Generation deleted successfully".to_owned(),
            }))
        }
    }
}

/// Mark or unmark a generation as favourite
#[endpoint(
    tags("generations"),
    parameters(("generation_id" = String, Path, format = "uuid")),
    status_codes(200, 401, 404, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn favorite_generation(req: &mut Request, depot: &mut Depot) -> Result<Json<GenerationObject>> {
    let services = services(depot)?;
    let caller = Caller::of(depot)?;
    let id: GenerationId = path_id(req, "generation_id")?;
    let now = clock::now();
    let toggled = services.store.toggle_favorite(caller.user_id, id, now).await?;
    let generation = toggled.ok_or_else(missing)?;
    Ok(Json(GenerationObject::of(&generation, &services.outputs, now)))
}

/// Where the files of a generation are.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[salvo(schema(name = "MediaUrls"))]
struct MediaUrls {
    #[salvo(schema(format = "uuid"))]
    generation_id: String,
    /// Empty unless it is completed.
    signed_urls: Vec<String>,
    /// The first of them.
    #[salvo(schema(required = true))]
    primary_url: Option<String>,
    /// Seconds for which the URLs are valid at least.
    expires_in: u64,
    #[salvo(schema(format = "date-time"))]
    expires_at: String,
    file_count: usize,
    /// Always `signed_url`.
    access_method: String,
    /// Always true.
    authorization_complete: bool,
}

/// Fresh signed URLs of a generation's files
#[endpoint(
    tags("generations"),
    parameters(("generation_id" = String, Path, format = "uuid")),
    status_codes(200, 401, 404, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn generation_media_urls(req: &mut Request, depot: &mut Depot) -> Result<Json<MediaUrls>> {
    let services = services(depot)?;
    let caller = Caller::of(depot)?;
    let id: GenerationId = path_id(req, "generation_id")?;
    let generation = services
        .store
        .generation(caller.user_id, id)
        .await?
        .ok_or_else(missing)?;
    let now = clock::now();
    let ttl = services.config.output_url_ttl;
    let signed_urls = output_urls(&generation, &services.outputs, now).unwrap_or_default();
    Ok(Json(MediaUrls {
        generation_id: id.to_string(),
        primary_url: signed_urls.first().cloned(),
        expires_in: ttl.as_secs(),
        expires_at: now.plus(ttl).rfc3339(),
        file_count: signed_urls.len(),
        signed_urls,
        access_method: "signed_url".to_owned(),
        authorization_complete: true,
    }))
}

/// What a call costs and what would be sent.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[salvo(schema(name = "Quote"))]
struct QuoteAnswer {
    model_id: String,
    /// What would be held, and charged when everything is delivered.
    credits: i64,
    /// Before factors.
    base_credits: i64,
    /// What the base is multiplied by, in order.
    factors: Vec<Factor>,
    /// As validated, with defaults.
    #[salvo(schema(value_type = Object))]
    parameters: Map<String, Value>,
    /// Names the model does not know; they have no effect.
    dropped_parameters: Vec<String>,
}

/// A multiplier of a price.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[salvo(schema(name = "PriceFactor"))]
struct Factor {
    parameter: String,
    value: i64,
}

/// Price of a call
///
/// Validates and prices a call without submitting it. The body is the one of submit.
#[endpoint(
    tags("generations"),
    request_body = CallBody,
    status_codes(200, 400, 401, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn quote_generation(req: &mut Request, depot: &mut Depot) -> Result<Json<QuoteAnswer>> {
    let services = services(depot)?;
    let body: CallBody = json(req, services.config.max_body_bytes).await?;
    let call = body.clean()?;
    check_model(Caller::of(depot)?.key.as_deref(), &call.model_id)?;
    Ok(Json(quote(services, &call)?))
}

fn quote(services: &Services, call: &call::Call) -> Result<QuoteAnswer> {
    call.check_reference(services.config.upstream_allow_private)?;
    let (model, valid) = services
        .intake
        .quote(&call.model_id, &call.client_call())
        .map_err(call::refused)?;
    let factor = |(parameter, value)| Factor { parameter, value };
    Ok(QuoteAnswer {
        model_id: model.id.clone(),
        credits: valid.price.0,
        base_credits: valid.price_basis.base.0,
        factors: valid.price_basis.factors.into_iter().map(factor).collect(),
        parameters: valid.parameters,
        dropped_parameters: valid.dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Credits;

    #[test]
    fn the_success_rate_is_a_percentage_with_two_decimals() {
        let stats = GenerationStats {
            total: 3,
            completed: 2,
            captured: Credits(90),
            ..GenerationStats::default()
        };
        let answer = stats_answer(stats);
        assert_eq!((answer.success_rate, answer.total_credits_used), (66.67, 90));
        assert_eq!(stats_answer(GenerationStats::default()).success_rate, 0.0);
    }
}
