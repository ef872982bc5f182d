//! The three listings of models with their three shapes, and one model's detail and price (contract §6). Only what can
//! be used is shown. Ids contain slashes, encoded or not.

use salvo::caching_headers::ETag;
use salvo::http::header::{CACHE_CONTROL, HeaderValue};
use salvo::oapi::{ToSchema, endpoint};
use salvo::prelude::Json;
use salvo::{Depot, FlowCtrl, Request, Response, Router, handler};
use serde::Serialize;
use serde_json::{Map, Value};
use std::sync::Arc;

use crate::catalog::{Model, Registry, by_type_then_credits, names};
use crate::generation::MediaType;
use crate::http::input::{Query, services};
use crate::http::problem::{Problem, Result};
use crate::http::rendered::Rendered;

/// `/api/v1/models`.
pub fn router() -> Router {
    Router::with_path("models")
        .hoop(cacheable)
        .hoop(ETag::new())
        .get(list_models)
        .push(Router::with_path("supported").get(supported_models))
        .push(Router::with_path("{**priced_model|.+/pricing/?}").get(model_pricing))
        .push(Router::with_path("{**model_id}").get(model_detail))
}

/// `/models/supported` below `/api/v1/generations` and `/generations`.
pub fn supported_router() -> Router {
    Router::with_path("models/supported")
        .hoop(cacheable)
        .hoop(ETag::new())
        .get(generation_models)
}

/// A listing is the same for everybody and changes only with the registry.
#[handler]
async fn cacheable(req: &mut Request, depot: &mut Depot, res: &mut Response, ctrl: &mut FlowCtrl) {
    ctrl.call_next(req, depot, res).await;
    if !res
        .status_code
        .is_some_and(|s| s.is_client_error() || s.is_server_error())
    {
        res.headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"));
    }
}

/// A list in a wrapper.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[salvo(schema(name = "GenerationModels"))]
struct Infos {
    models: Vec<ModelInfo>,
}

/// A model as the listings beside generations show it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[salvo(schema(name = "ModelInfo"))]
pub struct ModelInfo {
    model_id: String,
    /// The last segment of the id, title-cased; not unique.
    name: String,
    /// `image`, `video` or `audio`.
    r#type: String,
    /// Base price.
    credits: i64,
    max_resolution: String,
    supported_formats: Vec<String>,
    description: String,
    /// The provider's own name of the model.
    endpoint: String,
    /// Parameter name to its specification: `type`, `required`, `default`, `enum`, `min`, `max`, `max_length`.
    #[salvo(schema(value_type = Object))]
    parameters: Map<String, Value>,
    #[salvo(schema(value_type = Object))]
    example_params: Map<String, Value>,
}

impl ModelInfo {
    fn of(model: &Model) -> Self {
        ModelInfo {
            model_id: model.id.clone(),
            name: names::short_name(&model.id),
            r#type: model.media_type.as_str().to_owned(),
            credits: model.credits.0,
            max_resolution: model.max_resolution.clone(),
            supported_formats: model.formats.clone(),
            description: model.description.clone(),
            endpoint: model.provider_model.clone(),
            parameters: model.parameter_specs(),
            example_params: model.example.clone(),
        }
    }
}

fn infos(registry: &Registry) -> Vec<ModelInfo> {
    let mut models: Vec<Arc<Model>> = registry.available(None).cloned().collect();
    by_type_then_credits(&mut models);
    models.iter().map(|m| ModelInfo::of(m)).collect()
}

/// Models with their parameters
///
/// Sorted by type, then by credits.
#[endpoint(
    tags("models"),
    responses((status_code = 304, description = "Unchanged since the ETag that was sent")),
    status_codes(200, 304, 500)
)]
async fn generation_models(depot: &mut Depot) -> Result<Rendered<Infos>> {
    let services = services(depot)?;
    let make = |registry: &Registry| Infos {
        models: infos(registry),
    };
    services
        .listings
        .get(("generation_models", None), &services.shelf.get(), make)
}

/// Models with their parameters, without a wrapper
#[endpoint(
    tags("async generations"),
    status_codes(200, 401, 429, 500, 503),
    security(["bearer" = []])
)]
pub async fn available_models(depot: &mut Depot) -> Result<Rendered<Vec<ModelInfo>>> {
    let services = services(depot)?;
    services
        .listings
        .get(("available_models", None), &services.shelf.get(), infos)
}

/// A list in a wrapper.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[salvo(schema(name = "Models"))]
struct Models {
    models: Vec<ModelObject>,
}

/// A model.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[salvo(schema(name = "Model"))]
struct ModelObject {
    id: String,
    /// The id without its first segment, title-cased.
    name: String,
    /// `image`, `video` or `audio`.
    generation_type: String,
    /// Base price.
    credits_cost: i64,
    description: String,
    /// Parameter name to its specification.
    #[salvo(schema(value_type = Object))]
    parameters: Map<String, Value>,
    /// Always true: only what can be used is listed.
    is_active: bool,
}

impl ModelObject {
    fn of(model: &Model) -> Self {
        ModelObject {
            id: model.id.clone(),
            name: names::long_name(&model.id),
            generation_type: model.media_type.as_str().to_owned(),
            credits_cost: model.credits.0,
            description: model.description.clone(),
            parameters: model.parameter_specs(),
            is_active: true,
        }
    }
}

/// A listing of the models of the wanted type; an unknown type has none.
fn listing<T: Serialize>(
    name: &'static str,
    depot: &Depot,
    query: &Query,
    make: impl FnOnce(&mut dyn Iterator<Item = &Arc<Model>>) -> T,
) -> Result<Rendered<T>> {
    let services = services(depot)?;
    let asked = query.text("model_type");
    let media_type = asked.and_then(MediaType::parse);
    let nothing = asked.is_some() && media_type.is_none();
    if nothing {
        // Not kept: its name would be that of the listing of all.
        return Rendered::of(&make(&mut std::iter::empty()));
    }
    let make = |registry: &Registry| make(&mut registry.available(media_type));
    services.listings.get((name, media_type), &services.shelf.get(), make)
}

/// Models
///
/// In the order of the registry.
#[endpoint(
    tags("models"),
    parameters(
        ("model_type" = Option<String>, Query, description = "`image`, `video` or `audio`; anything else has no models."),
        ("available_only" = Option<bool>, Query, description = "No effect: only models that can be used are listed."),
    ),
    responses((status_code = 304, description = "Unchanged since the ETag that was sent")),
    status_codes(200, 304, 422, 500)
)]
async fn list_models(req: &mut Request, depot: &mut Depot) -> Result<Rendered<Models>> {
    let query = Query::of(req);
    query.boolean("available_only", true)?;
    listing("models", depot, &query, |models| Models {
        models: models.map(|m| ModelObject::of(m)).collect(),
    })
}

/// A list with its length.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[salvo(schema(name = "SupportedModels"))]
struct SupportedModels {
    models: Vec<SupportedModel>,
    count: usize,
    /// Always `fal`, which in the contract says that the list is the real one and not a fallback.
    source: String,
}

/// A model without its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[salvo(schema(name = "SupportedModel"))]
struct SupportedModel {
    model_id: String,
    /// The last segment of the id, title-cased; not unique.
    name: String,
    /// `image`, `video` or `audio`.
    r#type: String,
    /// Base price.
    credits: i64,
    description: String,
    /// Always true: only what can be used is listed.
    is_active: bool,
}

impl SupportedModel {
    fn of(model: &Model) -> Self {
        SupportedModel {
            model_id: model.id.clone(),
            name: names::short_name(&model.id),
            r#type: model.media_type.as_str().to_owned(),
            credits: model.credits.0,
            description: model.description.clone(),
            is_active: true,
        }
    }
}

/// Models, briefly
#[endpoint(
    tags("models"),
    parameters(("model_type" = Option<String>, Query, description = "`image`, `video` or `audio`; anything else has no models.")),
    responses((status_code = 304, description = "Unchanged since the ETag that was sent")),
    status_codes(200, 304, 500)
)]
async fn supported_models(req: &mut Request, depot: &mut Depot) -> Result<Rendered<SupportedModels>> {
    listing("supported_models", depot, &Query::of(req), |models| {
        let models: Vec<_> = models.map(|m| SupportedModel::of(m)).collect();
        SupportedModels {
            count: models.len(),
            models,
            source: "fal".to_owned(),
        }
    })
}

/// A model with everything clients need.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[salvo(schema(name = "ModelDetail"))]
struct ModelDetail {
    id: String,
    /// The id without its first segment, title-cased.
    name: String,
    /// `image`, `video` or `audio`.
    generation_type: String,
    /// Base price.
    credits_cost: i64,
    description: String,
    /// Parameter name to its specification.
    #[salvo(schema(value_type = Object))]
    parameters: Map<String, Value>,
    /// Always true: only what can be used is shown.
    is_active: bool,
    max_resolution: String,
    supported_formats: Vec<String>,
    #[salvo(schema(value_type = Object))]
    example_params: Map<String, Value>,
}

/// One model
///
/// The id's slashes may be encoded or not.
#[endpoint(
    tags("models"),
    parameters(("model_id" = String, Path, min_length = 1, max_length = 100, description = "Contains slashes.")),
    responses((status_code = 304, description = "Unchanged since the ETag that was sent")),
    status_codes(200, 304, 404, 500)
)]
async fn model_detail(req: &mut Request, depot: &mut Depot) -> Result<Json<ModelDetail>> {
    let registry = services(depot)?.shelf.get();
    let model = usable(&registry, tail(req, "model_id"))?;
    let plain = ModelObject::of(model);
    Ok(Json(ModelDetail {
        id: plain.id,
        name: plain.name,
        generation_type: plain.generation_type,
        credits_cost: plain.credits_cost,
        description: plain.description,
        parameters: plain.parameters,
        is_active: plain.is_active,
        max_resolution: model.max_resolution.clone(),
        supported_formats: model.formats.clone(),
        example_params: model.example.clone(),
    }))
}

/// The price of a model.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[salvo(schema(name = "ModelPricing"))]
struct ModelPricing {
    model_id: String,
    /// Base price; `POST /api/v1/generations/quote` prices a call.
    credits_cost: i64,
    max_resolution: String,
    supported_formats: Vec<String>,
}

/// Base price of a model
#[endpoint(
    tags("models"),
    parameters(("model_id" = String, Path, min_length = 1, max_length = 100, description = "Contains slashes.")),
    responses((status_code = 304, description = "Unchanged since the ETag that was sent")),
    status_codes(200, 304, 404, 500)
)]
async fn model_pricing(req: &mut Request, depot: &mut Depot) -> Result<Json<ModelPricing>> {
    let registry = services(depot)?.shelf.get();
    let path = tail(req, "priced_model");
    let model = usable(&registry, path.strip_suffix("/pricing").unwrap_or(path))?;
    Ok(Json(ModelPricing {
        model_id: model.id.clone(),
        credits_cost: model.credits.0,
        max_resolution: model.max_resolution.clone(),
        supported_formats: model.formats.clone(),
    }))
}

/// The rest of the path, decoded, without a trailing slash.
fn tail<'r>(req: &'r Request, name: &str) -> &'r str {
    let params = req.params();
    params.get(name).map_or("", |text| text.trim_end_matches('/'))
}

fn usable<'r>(registry: &'r Registry, id: &str) -> Result<&'r Arc<Model>> {
    let model = registry.model(id).filter(|m| registry.is_available(m));
    model.ok_or_else(|| Problem::not_found("Model"))
}
