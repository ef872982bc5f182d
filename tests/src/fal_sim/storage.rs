//! Uploads, as far as the official clients use them for small files: `initiate` + `PUT`, and the CDN token with
//! `files/upload`. Uploaded files are served again under `/files/`.

use std::sync::Arc;

use salvo::Request;
use salvo::http::Method;
use serde_json::{Value, json};

use super::api::{MAX_BODY_BYTES, base_url, unauthorized};
use super::outputs::rfc3339;
use super::reply::Reply;
use super::state::{Inner, Upload};

pub(super) async fn handle(inner: &Arc<Inner>, segments: &[&str], req: &mut Request) -> Reply {
    let method = req.method().clone();
    match segments {
        ["storage", "upload", "initiate"] if method == Method::POST => initiate(inner, req).await,
        ["storage", "auth", "token"] if method == Method::POST => {
            if let Some(refusal) = unauthorized(inner, req) {
                return refusal;
            }
            let expires = time::OffsetDateTime::now_utc() + time::Duration::hours(1);
            let token = uuid::Uuid::new_v4().to_string();
            let answer = json!({
                "token": token,
                "token_type": "Bearer",
                "base_url": base_url(inner, req),
                "expires_at": rfc3339(expires),
            });
            inner.lock().cdn_tokens.insert(token);
            Reply::json(200, &answer)
        }
        ["files", "upload"] if method == Method::POST => {
            let authorization = header(req, "authorization").unwrap_or_default();
            let token = authorization.strip_prefix("Bearer ").unwrap_or_default();
            if !inner.lock().cdn_tokens.contains(token) {
                return Reply::detail(401, "Unknown or expired CDN token");
            }
            let name = header(req, "x-fal-file-name").unwrap_or_else(|| "file".to_owned());
            let id = format!("{}/{name}", uuid::Uuid::new_v4());
            let url = format!("{}/files/{id}", base_url(inner, req));
            match store(inner, id, req).await {
                Some(refusal) => refusal,
                None => Reply::json(200, &json!({ "access_url": url })),
            }
        }
        // The upload URL is its own permission, as a presigned one is.
        ["uploads", id @ ..] if method == Method::PUT => {
            let id = id.join("/");
            if !inner.lock().uploads.contains_key(&id) {
                return Reply::detail(404, "Unknown upload");
            }
            store(inner, id, req)
                .await
                .unwrap_or_else(|| Reply::json(200, &json!({})))
        }
        ["files", id @ ..] if method == Method::GET => match inner.lock().uploads.get(&id.join("/")) {
            Some(upload) => Reply {
                status: 200,
                content_type: upload.content_type.clone(),
                headers: Vec::new(),
                body: upload.bytes.clone(),
            },
            None => Reply::detail(404, "File not found"),
        },
        _ => Reply::detail(404, "Not Found"),
    }
}

async fn initiate(inner: &Inner, req: &mut Request) -> Reply {
    if let Some(refusal) = unauthorized(inner, req) {
        return refusal;
    }
    let body: Value = match req.payload_with_max_size(MAX_BODY_BYTES).await {
        Ok(body) => serde_json::from_slice(body).unwrap_or_default(),
        Err(_) => Value::Null,
    };
    let (Some(name), Some(content_type)) = (body["file_name"].as_str(), body["content_type"].as_str()) else {
        return Reply::detail(422, "file_name and content_type are required");
    };
    let id = format!("{}/{name}", uuid::Uuid::new_v4());
    let base = base_url(inner, req);
    let upload = Upload {
        content_type: content_type.to_owned(),
        bytes: bytes::Bytes::new(),
    };
    inner.lock().uploads.insert(id.clone(), upload);
    Reply::json(
        200,
        &json!({
            "upload_url": format!("{base}/uploads/{id}"),
            "file_url": format!("{base}/files/{id}"),
        }),
    )
}

/// Stores the request's body; gives the refusal if it cannot be read.
async fn store(inner: &Inner, id: String, req: &mut Request) -> Option<Reply> {
    let content_type = header(req, "content-type").unwrap_or_else(|| "application/octet-stream".to_owned());
    let Ok(body) = req.payload_with_max_size(MAX_BODY_BYTES).await else {
        return Some(Reply::detail(400, "Unreadable body"));
    };
    let upload = Upload {
        content_type,
        bytes: body.clone(),
    };
    inner.lock().uploads.insert(id, upload);
    None
}

fn header(req: &Request, name: &str) -> Option<String> {
    Some(req.headers().get(name)?.to_str().ok()?.to_owned())
}
