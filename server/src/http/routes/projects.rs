//! `/api/v1/projects`: folders of generations.

use salvo::oapi::{ToSchema, endpoint};
use salvo::prelude::Json;
use salvo::{Depot, Request, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::auth::Done;
use super::system::Pong;
use crate::clock;
use crate::http::Caller;
use crate::http::hoops::authenticated;
use crate::http::input::{Faults, Query, json, path_id, services};
use crate::http::limits::{Policy, limit};
use crate::http::problem::{Problem, Result};
use crate::id::ProjectId;
use crate::store::{NewProject, Project, ProjectChange, ProjectFilter, Visibility};

const NAME_MAX_CHARS: usize = 100;
const DESCRIPTION_MAX_CHARS: usize = 500;
const MAX_TAGS: usize = 10;
const TAG_MAX_CHARS: usize = 50;
/// Longest metadata, as JSON text.
const METADATA_MAX_BYTES: usize = 16 * 1024;

/// Routes below `/api/v1/projects`, with their hoops.
pub fn router() -> Router {
    Router::new().push(Router::with_path("_ping").get(projects_ping)).push(
        Router::with_hoop(authenticated)
            .hoop(limit(Policy::Api))
            .get(list_projects)
            .post(create_project)
            .push(
                Router::with_path("{project_id}")
                    .get(get_project)
                    .put(update_project)
                    .delete(delete_project)
                    .push(Router::with_path("stats").get(project_stats)),
            ),
    )
}

/// Who may see a project.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[salvo(schema(name = "Visibility"))]
enum VisibilityName {
    /// The owner.
    Private,
    /// The owner, until there are teams.
    TeamOnly,
    /// Everybody who is signed in.
    Public,
}

impl From<VisibilityName> for Visibility {
    fn from(name: VisibilityName) -> Self {
        match name {
            VisibilityName::Private => Visibility::Private,
            VisibilityName::TeamOnly => Visibility::TeamOnly,
            VisibilityName::Public => Visibility::Public,
        }
    }
}

impl From<Visibility> for VisibilityName {
    fn from(visibility: Visibility) -> Self {
        match visibility {
            Visibility::Private => VisibilityName::Private,
            Visibility::TeamOnly => VisibilityName::TeamOnly,
            Visibility::Public => VisibilityName::Public,
        }
    }
}

/// A folder of generations.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "Project"))]
pub(super) struct ProjectView {
    name: String,
    #[salvo(schema(required = true))]
    description: Option<String>,
    visibility: VisibilityName,
    tags: Vec<String>,
    #[salvo(schema(value_type = Object))]
    metadata: Map<String, Value>,
    #[salvo(schema(format = "uuid"))]
    id: String,
    #[salvo(schema(format = "uuid"))]
    user_id: String,
    /// Generations in it now.
    generation_count: u64,
    #[salvo(schema(format = "date-time"))]
    created_at: String,
    #[salvo(schema(format = "date-time"))]
    updated_at: String,
}

impl From<Project> for ProjectView {
    fn from(project: Project) -> Self {
        ProjectView {
            name: project.name,
            description: project.description,
            visibility: project.visibility.into(),
            tags: project.tags,
            metadata: project.metadata,
            id: project.id.to_string(),
            user_id: project.user_id.to_string(),
            generation_count: project.generation_count,
            created_at: project.created_at.rfc3339(),
            updated_at: project.updated_at.rfc3339(),
        }
    }
}

/// A new project.
#[derive(Deserialize, ToSchema)]
#[salvo(schema(name = "ProjectCreate", example = json!({"name": "Lighthouses", "tags": ["coast"]})))]
struct ProjectCreate {
    /// Not blank.
    #[salvo(schema(min_length = 1, max_length = 100, example = json!("Lighthouses")))]
    name: String,
    #[serde(default)]
    #[salvo(schema(max_length = 500))]
    description: Option<String>,
    /// `private` by default.
    #[serde(default)]
    visibility: Option<VisibilityName>,
    /// At most 10 of at most 50 characters.
    #[serde(default)]
    #[salvo(schema(max_items = 10))]
    tags: Option<Vec<String>>,
    /// Your own data; at most 16 KiB.
    #[serde(default)]
    #[salvo(schema(value_type = Option<Object>))]
    metadata: Option<Map<String, Value>>,
}

/// What to change; what is left out or `null` stays.
#[derive(Deserialize, ToSchema)]
#[salvo(schema(name = "ProjectUpdate"))]
struct ProjectUpdate {
    /// Not blank.
    #[serde(default)]
    #[salvo(schema(min_length = 1, max_length = 100))]
    name: Option<String>,
    #[serde(default)]
    #[salvo(schema(max_length = 500))]
    description: Option<String>,
    #[serde(default)]
    visibility: Option<VisibilityName>,
    /// At most 10 of at most 50 characters.
    #[serde(default)]
    #[salvo(schema(max_items = 10))]
    tags: Option<Vec<String>>,
    /// Replaces the whole; at most 16 KiB.
    #[serde(default)]
    #[salvo(schema(value_type = Option<Object>))]
    metadata: Option<Map<String, Value>>,
}

impl ProjectUpdate {
    fn check(self) -> Result<ProjectChange> {
        let mut faults = Faults::default();
        if let Some(name) = &self.name {
            let loc = ["body", "name"];
            faults.unless(!name.trim().is_empty(), &loc, "must not be blank", "blank");
            faults.text(name, &loc, NAME_MAX_CHARS, false);
        }
        if let Some(description) = &self.description {
            faults.text(description, &["body", "description"], DESCRIPTION_MAX_CHARS, true);
        }
        if let Some(tags) = &self.tags {
            let rule = format!("must have at most {MAX_TAGS} items");
            faults.unless(tags.len() <= MAX_TAGS, &["body", "tags"], rule, "too_many");
            for (i, tag) in tags.iter().enumerate().take(MAX_TAGS) {
                faults.text(tag, &["body", "tags", &i.to_string()], TAG_MAX_CHARS, false);
            }
        }
        if let Some(metadata) = &self.metadata {
            let loc = ["body", "metadata"];
            let text = serde_json::to_string(metadata).unwrap_or_default();
            let rule = format!("must have at most {METADATA_MAX_BYTES} bytes as JSON");
            faults.unless(text.len() <= METADATA_MAX_BYTES, &loc, rule, "too_long");
            // Not every database can keep one in JSON.
            faults.unless(
                !has_nul(metadata),
                &loc,
                "must not contain NUL characters",
                "control_characters",
            );
        }
        faults.finish()?;
        Ok(ProjectChange {
            name: self.name,
            description: self.description,
            visibility: self.visibility.map(Into::into),
            tags: self.tags,
            metadata: self.metadata,
        })
    }
}

/// Whether a key or text anywhere inside contains a NUL.
fn has_nul(object: &Map<String, Value>) -> bool {
    fn in_value(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(items) => items.iter().any(in_value),
            Value::Object(object) => has_nul(object),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
    object.iter().any(|(key, value)| key.contains('\0') || in_value(value))
}

/// List projects
///
/// Your own, the one changed last first. With `visibility=public` everybody's public ones.
#[endpoint(
    tags("projects"),
    parameters(
        ("skip" = Option<u64>, Query, minimum = 0, maximum = 1000000000, description = "Projects to leave out; 0 by default."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Projects at most; 50 by default."),
        ("visibility" = Option<VisibilityName>, Query, description = "Only projects of this kind."),
    ),
    status_codes(200, 401, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn list_projects(req: &mut Request, depot: &mut Depot) -> Result<Json<Vec<ProjectView>>> {
    let services = services(depot)?;
    let query = Query::of(req);
    let (skip, limit) = query.page(50)?;
    let visibility = query.parsed("visibility", "must be private, team-only or public", Visibility::parse)?;
    let filter = ProjectFilter {
        visibility,
        skip,
        limit,
    };
    let projects = services.store.projects(Caller::of(depot)?.user_id, filter).await?;
    Ok(Json(projects.into_iter().map(Into::into).collect()))
}

/// Create a project
#[endpoint(
    tags("projects"),
    request_body = ProjectCreate,
    status_codes(200, 400, 401, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn create_project(req: &mut Request, depot: &mut Depot) -> Result<Json<ProjectView>> {
    let services = services(depot)?;
    let body: ProjectCreate = json(req, services.config.max_body_bytes).await?;
    // One set of rules for both ways in.
    let checked = ProjectUpdate {
        name: Some(body.name),
        description: body.description,
        visibility: body.visibility,
        tags: body.tags,
        metadata: body.metadata,
    }
    .check()?;
    let project = NewProject {
        id: ProjectId::new(),
        user_id: Caller::of(depot)?.user_id,
        name: checked.name.unwrap_or_default(),
        description: checked.description,
        visibility: checked.visibility.unwrap_or(Visibility::Private),
        tags: checked.tags.unwrap_or_default(),
        metadata: checked.metadata.unwrap_or_default(),
        now: clock::now(),
    };
    Ok(Json(services.store.create_project(project).await?.into()))
}

/// A project
///
/// Yours, or anybody's public one.
#[endpoint(
    tags("projects"),
    parameters(("project_id" = String, Path, format = "uuid", description = "Id of the project.")),
    status_codes(200, 401, 404, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn get_project(req: &mut Request, depot: &mut Depot) -> Result<Json<ProjectView>> {
    Ok(Json(visible(req, depot).await?.into()))
}

/// Change a project
#[endpoint(
    tags("projects"),
    parameters(("project_id" = String, Path, format = "uuid", description = "Id of the project.")),
    request_body = ProjectUpdate,
    status_codes(200, 400, 401, 404, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn update_project(req: &mut Request, depot: &mut Depot) -> Result<Json<ProjectView>> {
    let services = services(depot)?;
    let owner = Caller::of(depot)?.user_id;
    let id = path_id(req, "project_id")?;
    let body: ProjectUpdate = json(req, services.config.max_body_bytes).await?;
    let changed = services
        .store
        .update_project(owner, id, body.check()?, clock::now())
        .await?;
    Ok(Json(changed.ok_or_else(not_yours)?.into()))
}

/// Delete a project
///
/// Its generations stay, without a project.
#[endpoint(
    tags("projects"),
    parameters(("project_id" = String, Path, format = "uuid", description = "Id of the project.")),
    status_codes(200, 401, 404, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn delete_project(req: &mut Request, depot: &mut Depot) -> Result<Json<Done>> {
    let owner = Caller::of(depot)?.user_id;
    let id = path_id(req, "project_id")?;
    match services(depot)?.store.delete_project(owner, id).await? {
        true => Ok(Json(Done {
            message: "Project deleted successfully",
        })),
        false => Err(not_yours()),
    }
}

/// Counts of a project.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "ProjectStats"))]
struct ProjectStats {
    #[salvo(schema(format = "uuid"))]
    id: String,
    name: String,
    generation_count: u64,
    #[salvo(schema(format = "date-time"))]
    created_at: String,
    #[salvo(schema(format = "date-time"))]
    updated_at: String,
    visibility: VisibilityName,
    tags: Vec<String>,
}

/// Counts of a project
#[endpoint(
    tags("projects"),
    parameters(("project_id" = String, Path, format = "uuid", description = "Id of the project.")),
    status_codes(200, 401, 404, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn project_stats(req: &mut Request, depot: &mut Depot) -> Result<Json<ProjectStats>> {
    let project = visible(req, depot).await?;
    Ok(Json(ProjectStats {
        id: project.id.to_string(),
        name: project.name,
        generation_count: project.generation_count,
        created_at: project.created_at.rfc3339(),
        updated_at: project.updated_at.rfc3339(),
        visibility: project.visibility.into(),
        tags: project.tags,
    }))
}

/// The project of the path, if the caller may see it.
async fn visible(req: &Request, depot: &Depot) -> Result<Project> {
    let viewer = Caller::of(depot)?.user_id;
    let id = path_id(req, "project_id")?;
    let project = services(depot)?.store.project(viewer, id).await?;
    project.ok_or_else(|| Problem::not_found("Project"))
}

fn not_yours() -> Problem {
    Problem::not_found("Project")
}

/// Ping
#[endpoint(tags("projects"), status_codes(200))]
async fn projects_ping() -> Json<Pong> {
    Json(Pong::of("projects"))
}
