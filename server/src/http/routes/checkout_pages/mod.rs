//! Pages around a payment: the till of a development server, which moves no money, and where buyers come back to when no
//! page of the operator's is configured. Self-contained: nothing is loaded, no script runs.

use salvo::http::StatusCode;
use salvo::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, LOCATION};
use salvo::oapi::{ToSchema, endpoint};
use salvo::{Depot, Request, Response, Router};
use serde::Deserialize;
use url::Url;
use uuid::Uuid;

use crate::clock;
use crate::http::Services;
use crate::http::input::{Query, path_id, services};
use crate::http::limits::{Policy, limit};
use crate::http::problem::{Code, Problem, Result};
use crate::id::OrderId;
use crate::payments::sandbox::{Click, Sandbox};
use crate::payments::stripe::Returns;
use crate::purchase::{Order, OrderStatus, Payment};

const STYLE: &str = include_str!("style.css");
const PAY: &str = include_str!("pay.html");
const RESULT: &str = include_str!("result.html");
const BUTTONS: &str = r#"  <form method="post">
    <button class="pay" name="action" value="pay">Pay {{price}}</button>
    <div class="pair">
      <button name="action" value="decline">Decline the card</button>
      <button name="action" value="cancel">Cancel</button>
    </div>
  </form>"#;
const BACK: &str = r#"  <p>There is nothing left to do here; you can close this page.</p>"#;

/// Routes below `/api/v1/credits`.
pub fn router() -> Router {
    Router::new()
        .hoop(limit(Policy::Api))
        .push(
            Router::with_path("sandbox-checkout/{order_id}")
                .get(sandbox_page)
                .post(sandbox_click),
        )
        .push(Router::with_path("checkout-result").get(checkout_result))
}

/// The query of our own page, where the operator has none.
pub fn result_url(public_url: &str, outcome: &str) -> String {
    format!("{public_url}/api/v1/credits/checkout-result?outcome={outcome}")
}

/// The sandbox's payment page
///
/// Only in development, and only without Stripe: no money moves. The `checkout_url` of a purchase leads here.
#[endpoint(
    tags("credits"),
    parameters(
        ("order_id" = String, Path, format = "uuid"),
        ("token" = String, Query, description = "The signature in the `checkout_url`."),
    ),
    responses((status_code = 200, description = "The page", body = String, content_type = "text/html")),
    status_codes(200, 403, 404, 422, 429, 500, 503)
)]
async fn sandbox_page(req: &mut Request, depot: &mut Depot, res: &mut Response) -> Result<()> {
    let services = services(depot)?;
    let (_, order, returns) = opened(req, services).await?;
    let package = services.payments.packages().iter().find(|p| p.id == order.package_id);
    let name = package.map_or(order.package_id.as_str(), |p| p.name.as_str());
    let payable = order.status == OrderStatus::Open;
    let lead = match order.status {
        OrderStatus::Paid => "This order is paid, and its credits are booked.",
        OrderStatus::Failed => "The payment was declined.",
        OrderStatus::Expired => "The order was cancelled.",
        _ => "Choose what the payment provider shall say.",
    };
    let buttons = if payable { BUTTONS } else { BACK };
    let page = PAY.replace("{{buttons}}", buttons);
    let fields = [
        ("name", name.to_owned()),
        ("lead", lead.to_owned()),
        ("credits", order.credits.to_string()),
        ("status", order.status.as_str().to_owned()),
        ("price", order.price.to_string()),
        ("order", order.id.to_string()),
    ];
    // A browser holds a form's redirects to this list too.
    let origins: Vec<String> = [&returns.success_url, &returns.cancel_url]
        .into_iter()
        .filter_map(|url| Some(Url::parse(url).ok()?.origin().ascii_serialization()))
        .collect();
    send(res, &page, &fields, &format!("'self' {}", origins.join(" ")));
    Ok(())
}

/// What was clicked.
#[derive(Deserialize, ToSchema)]
#[salvo(schema(name = "SandboxClick"))]
struct ClickForm {
    /// `pay`, `decline` or `cancel`.
    action: String,
}

/// Pay, decline or cancel in the sandbox
///
/// Booked like a payment provider's word, once. Goes on to the success or cancel page.
#[endpoint(
    tags("credits"),
    parameters(
        ("order_id" = String, Path, format = "uuid"),
        ("token" = String, Query, description = "The signature in the `checkout_url`."),
    ),
    request_body(content = ClickForm, content_type = "application/x-www-form-urlencoded"),
    responses((status_code = 303, description = "To the success or cancel page")),
    status_codes(303, 400, 403, 404, 409, 413, 422, 429, 500, 503)
)]
async fn sandbox_click(req: &mut Request, depot: &mut Depot, res: &mut Response) -> Result<()> {
    let services = services(depot)?;
    let (sandbox, order, returns) = opened(req, services).await?;
    let ClickForm { action } = req.parse_form().await?;
    let click = Click::parse(&action)
        .ok_or_else(|| Problem::field(&["body", "action"], "must be pay, decline or cancel", "enum"))?;
    let notice = sandbox.notice(&order, click, clock::now());
    let wanted = match click {
        Click::Pay => OrderStatus::Paid,
        Click::Decline => OrderStatus::Failed,
        Click::Cancel => OrderStatus::Expired,
    };
    // The same click again goes on as before; another one is too late.
    if order.status != OrderStatus::Open && order.status != wanted {
        let detail = format!("The order is {} already", order.status.as_str());
        return Err(Problem::new(Code::Conflict, detail));
    }
    services.payments.record(notice).await?;
    let to = match click {
        Click::Pay => returns.success_url,
        Click::Decline | Click::Cancel => returns.cancel_url,
    };
    let location = HeaderValue::from_str(&to).map_err(Problem::internal)?;
    res.status_code(StatusCode::SEE_OTHER);
    res.headers_mut().insert(LOCATION, location);
    Ok(())
}

/// The till, the order of the path and where its buyer goes, if the token is right.
async fn opened<'s>(req: &Request, services: &'s Services) -> Result<(&'s Sandbox, Order, Returns)> {
    let missing = || Problem::not_found("Checkout");
    let sandbox = services.payments.sandbox().ok_or_else(missing)?;
    let id: OrderId = path_id(req, "order_id")?;
    let query = Query::of(req);
    let returns = sandbox
        .open(id, query.text("token").unwrap_or_default(), clock::now())
        .ok_or_else(|| Problem::new(Code::Forbidden, "The link is not valid, or it has expired; order again"))?;
    let record = services.store.order(id).await?.ok_or_else(missing)?;
    match record.order.payment {
        Payment::Sandbox => Ok((sandbox, record.order, returns)),
        Payment::Stripe => Err(missing()),
    }
}

/// After a payment
///
/// Where buyers come back to when the operator has configured no page of their own.
#[endpoint(
    tags("credits"),
    parameters(("outcome" = Option<String>, Query, description = "`success` or `cancel`.")),
    responses((status_code = 200, description = "The page", body = String, content_type = "text/html")),
    status_codes(200, 429, 500)
)]
async fn checkout_result(req: &mut Request, res: &mut Response) -> Result<()> {
    let success = Query::of(req).text("outcome") == Some("success");
    let (title, text) = match success {
        true => (
            "Thank you",
            "Your credits are booked as soon as the payment is confirmed, usually within seconds. You can close this page.",
        ),
        false => (
            "Nothing was bought",
            "The payment was not made. You can close this page.",
        ),
    };
    let fields = [("title", title.to_owned()), ("text", text.to_owned())];
    send(res, RESULT, &fields, "'none'");
    Ok(())
}

/// Fills a page in and sends it under a policy that allows its own style only.
fn send(res: &mut Response, page: &str, fields: &[(&str, String)], form_action: &str) {
    let nonce = Uuid::new_v4().simple().to_string();
    let page = page.replace("{{style}}", STYLE).replace("{{nonce}}", &nonce);
    let page = fields.iter().fold(page, |page, (name, value)| {
        page.replace(&format!("{{{{{name}}}}}"), &escaped(value))
    });
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; form-action {form_action}; base-uri 'none'; \
         frame-ancestors 'none'"
    );
    let headers = res.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    res.replace_body(page.into_bytes().into());
}

/// Text for HTML. A brace is written as a number too, so that no value is taken for a field of the page.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '{' => out.push_str("&#123;"),
            c => out.push(c),
        }
    }
    out
}
