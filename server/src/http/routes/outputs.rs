//! `GET /outputs/{key}`: files behind signed URLs. The signature is the permission, so pages of every origin may show
//! them; nothing in them is ever run.

use salvo::fs::NamedFile;
use salvo::http::StatusCode;
use salvo::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue};
use salvo::oapi::{BasicType, Components, KnownFormat, Object, RefOr, Schema, SchemaFormat, ToSchema, endpoint};
use salvo::{Depot, Request, Response, Router};
use std::io::ErrorKind;
use std::sync::Arc;

use crate::clock;
use crate::http::hoops::EveryOrigin;
use crate::http::input::{Query, services};
use crate::http::problem::{Code, Problem, Result};
use crate::outputs::Outputs;

/// `/outputs`.
pub fn router() -> Router {
    Router::with_path("outputs/{**key}").get(output_file)
}

/// The content of a file, for the documentation.
struct Bytes;

impl ToSchema for Bytes {
    fn to_schema(_: &mut Components) -> RefOr<Schema> {
        let binary = SchemaFormat::KnownFormat(KnownFormat::Binary);
        Schema::from(Object::new().schema_type(BasicType::String).format(binary)).into()
    }
}

/// A delivered file
///
/// The URL comes signed from the API and expires; ask for the generation again to get a new one. Byte ranges and
/// conditional requests work.
#[endpoint(
    tags("outputs"),
    parameters(
        ("key" = String, Path, description = "Contains slashes."),
        ("exp" = String, Query, description = "When the URL expires, in Unix seconds."),
        ("sig" = String, Query, description = "The signature."),
        ("Range" = Option<String>, Header, description = "`bytes=0-1023`"),
    ),
    responses(
        (status_code = 200, description = "The file", body = Bytes, content_type = ["image/*", "video/*", "audio/*"]),
        (status_code = 206, description = "The asked part of the file", body = Bytes, content_type = ["image/*", "video/*", "audio/*"]),
        (status_code = 304, description = "Unchanged since the ETag or time that was sent"),
    ),
    status_codes(200, 206, 304, 400, 403, 404, 412, 416, 500)
)]
async fn output_file(req: &mut Request, depot: &mut Depot, res: &mut Response) -> Result<()> {
    let services = Arc::clone(services(depot)?);
    let key = req.params().get("key").map(String::as_str).unwrap_or_default();
    let query = Query::of(req);
    let now = clock::now();
    let (exp, sig) = (
        query.text("exp").unwrap_or_default(),
        query.text("sig").unwrap_or_default(),
    );
    let path = services
        .outputs
        .verify(key, exp, sig, now)
        .map_err(|refused| Problem::new(Code::Forbidden, sentence(&refused.to_string())))?;
    let kind = Outputs::content_type(key);
    let kind = kind.parse().map_err(Problem::internal)?;
    let file = match NamedFile::builder(&path).content_type(kind).build().await {
        Ok(file) => file,
        Err(salvo::Error::Io(error)) if error.kind() == ErrorKind::NotFound => return Err(Problem::not_found("File")),
        Err(error) => return Err(Problem::internal(error)),
    };
    depot.insert_typed(EveryOrigin);
    let headers = res.headers_mut();
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("cross-origin"),
    );
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("sandbox; default-src 'none'"),
    );
    headers.insert(CACHE_CONTROL, cache_control(exp, now.seconds()));
    headers.insert(CONTENT_DISPOSITION, disposition(key));
    file.send_with_method(req.method(), req.headers(), res).await;
    match res.status_code {
        None => {
            res.status_code(StatusCode::OK);
        }
        // What it says is about this request: nothing to keep, nothing to save.
        Some(status) if status.is_client_error() => {
            res.headers_mut().remove(CACHE_CONTROL);
            res.headers_mut().remove(CONTENT_DISPOSITION);
        }
        Some(_) => {}
    }
    Ok(())
}

/// The file never changes; the permission ends with the URL.
fn cache_control(exp: &str, now_s: i64) -> HeaderValue {
    let left = exp.parse::<i64>().map_or(0, |exp| (exp - now_s).max(0));
    HeaderValue::from_str(&format!("private, max-age={left}")).unwrap_or(HeaderValue::from_static("no-store"))
}

/// Shown in place, saved under a name that tells generations apart. Keys are plain ASCII.
fn disposition(key: &str) -> HeaderValue {
    let name = key.replace('/', "-");
    HeaderValue::from_str(&format!("inline; filename=\"velro-{name}\"")).unwrap_or(HeaderValue::from_static("inline"))
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_cached_as_long_as_their_url_lives() {
        assert_eq!(cache_control("1000", 400), "private, max-age=600");
        assert_eq!(cache_control("1000", 2000), "private, max-age=0");
    }

    #[test]
    fn names_are_flat() {
        assert_eq!(disposition("0190/0-ab.png"), "inline; filename=\"velro-0190-0-ab.png\"");
    }
}
