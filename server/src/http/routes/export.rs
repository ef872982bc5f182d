//! `GET /api/v1/user/export`: everything that is stored about the caller, as one JSON document that is read from the store
//! while it is sent, so that a large account costs no memory.

use futures_util::stream;
use salvo::http::ResBody;
use salvo::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use salvo::oapi::endpoint;
use salvo::{Depot, Response, Router};
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;

use super::account::SessionView;
use super::credits::CreditTransaction;
use super::generation_view::GenerationObject;
use super::keys::KeyView;
use super::person::{GoTrueUser, account};
use super::projects::ProjectView;
use super::purchases::PurchaseView;
use crate::clock;
use crate::http::hoops::authenticated;
use crate::http::input::services;
use crate::http::limits::{Policy, limit};
use crate::http::problem::Result;
use crate::http::{Caller, Services};
use crate::id::UserId;
use crate::store::{GenerationFilter, OrderFilter, ProjectFilter, StatementFilter};

/// Rows that are read together.
const PAGE: u32 = 200;

/// Routes below `/api/v1/user`, with their hoops.
pub fn router() -> Router {
    Router::with_hoop(authenticated)
        .hoop(limit(Policy::Export))
        .push(Router::with_path("export").get(export))
}

/// Export your data
///
/// Profile, sessions, API keys, purchases, projects, generations with links to their files, and the whole statement of credits, as one
/// JSON document. Should it break off in the middle, it is not valid JSON: ask again.
#[endpoint(
    tags("user"),
    status_codes(200, 401, 429, 500, 503),
    security(["bearer" = []])
)]
async fn export(depot: &mut Depot, res: &mut Response) -> Result<()> {
    let services = Arc::clone(services(depot)?);
    let caller = Caller::of(depot)?;
    let (user, available) = account(depot).await?;
    let now = clock::now();
    let sessions = services.auth.sessions(caller).await?.unwrap_or_default().into_iter();
    let keys = services.store.api_keys(caller.user_id).await?.into_iter();
    let sessions: Vec<SessionView> = sessions.map(|s| SessionView::of(s, caller.session_id)).collect();
    let keys: Vec<KeyView> = keys.map(|key| KeyView::of(key, now)).collect();
    let head = json!({
        "exported_at": now.rfc3339(),
        "user": GoTrueUser::new(&user, available, None),
        "sessions": sessions,
        "api_keys": keys,
        "orders": orders(&services, caller.user_id).await?,
    });
    let exporter = Exporter {
        services,
        owner: caller.user_id,
        // Without the closing brace: the lists follow.
        head: head.to_string().strip_suffix('}').map(str::to_owned),
        part: Part::Projects,
        skip: 0,
    };
    let headers = res.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"velro-export.json\""),
    );
    res.replace_body(ResBody::stream(stream::unfold(Some(exporter), Exporter::next)));
    Ok(())
}

/// Every purchase of the caller; people have few.
async fn orders(services: &Services, owner: UserId) -> Result<Vec<PurchaseView>> {
    let mut filter = OrderFilter {
        user_id: Some(owner),
        limit: PAGE,
        ..OrderFilter::default()
    };
    let mut orders = Vec::new();
    loop {
        let page = services.store.orders(filter.clone()).await?;
        filter.before = page.last().map(|order| order.id);
        let is_last = page.len() < PAGE as usize;
        orders.extend(page.into_iter().map(PurchaseView::from));
        if is_last {
            return Ok(orders);
        }
    }
}

/// A list of the document.
#[derive(Clone, Copy)]
enum Part {
    Projects,
    Generations,
    Transactions,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Projects => "projects",
            Part::Generations => "generations",
            Part::Transactions => "transactions",
        }
    }

    fn next(self) -> Option<Part> {
        match self {
            Part::Projects => Some(Part::Generations),
            Part::Generations => Some(Part::Transactions),
            Part::Transactions => None,
        }
    }
}

/// What has been written so far.
struct Exporter {
    services: Arc<Services>,
    owner: UserId,
    head: Option<String>,
    part: Part,
    skip: u64,
}

impl Exporter {
    /// The next piece of text, until everything is written. An error breaks the answer off, so that nobody takes a part for
    /// the whole.
    async fn next(this: Option<Exporter>) -> Option<(std::io::Result<String>, Option<Exporter>)> {
        let mut this = this?;
        if let Some(head) = this.head.take() {
            return Some((Ok(head), Some(this)));
        }
        let rows = match this.rows().await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(user_id = %this.owner, error = %error, "an export broke off");
                return Some((Err(std::io::Error::other("the export broke off")), None));
            }
        };
        let mut text = match this.skip {
            0 => format!(",\"{}\":[", this.part.name()),
            _ if rows.is_empty() => String::new(),
            _ => ",".to_owned(),
        };
        text.push_str(&rows.join(","));
        this.skip += rows.len() as u64;
        if rows.len() as u64 == u64::from(PAGE) {
            return Some((Ok(text), Some(this)));
        }
        text.push(']');
        match this.part.next() {
            Some(part) => {
                (this.part, this.skip) = (part, 0);
                Some((Ok(text), Some(this)))
            }
            None => {
                text.push('}');
                Some((Ok(text), None))
            }
        }
    }

    /// A page of the present list, each row as JSON.
    async fn rows(&self) -> anyhow::Result<Vec<String>> {
        fn written<T: Serialize>(rows: impl Iterator<Item = T>) -> anyhow::Result<Vec<String>> {
            rows.map(|row| Ok(serde_json::to_string(&row)?)).collect()
        }
        let (store, owner) = (&self.services.store, self.owner);
        let (skip, limit) = (self.skip, PAGE);
        match self.part {
            Part::Projects => {
                let filter = ProjectFilter {
                    visibility: None,
                    skip,
                    limit,
                };
                written(store.projects(owner, filter).await?.into_iter().map(ProjectView::from))
            }
            Part::Generations => {
                let filter = GenerationFilter {
                    skip,
                    limit,
                    ..GenerationFilter::default()
                };
                let (outputs, now) = (&self.services.outputs, clock::now());
                let page = store.generations(owner, filter).await?;
                written(page.items.iter().map(|g| GenerationObject::of(g, outputs, now)))
            }
            Part::Transactions => {
                let filter = StatementFilter {
                    line_type: None,
                    skip,
                    limit,
                };
                let page = store.statement(owner, filter).await?;
                written(page.items.into_iter().map(CreditTransaction::from))
            }
        }
    }
}
