//! The one request of a job: a generation, or an edit when there is a reference image.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use velro_plugin::{Fault, FaultCode, HttpRequest, Job, Map, Value, escape};

use crate::config::{Config, Edits};

/// Inputs that are images: links or `data:` URLs, one or a list.
const IMAGES: [&str; 2] = ["image", "mask"];

/// A reference image that nobody can read.
pub(crate) struct Unreadable;

/// Builds the paid request. The inner error is the user's, the outer one the operator's.
pub(crate) fn submit(config: &Config, job: &Job<'_>) -> Result<Result<HttpRequest, Unreadable>, Fault> {
    let mut input = job.params.map().clone();
    input.insert("model".into(), job.model.into());
    let images = input.get("image").map(urls).unwrap_or_default();
    let request = if images.is_empty() {
        post(config, "/images/generations").json_body(Value::Object(input).to_string())
    } else if as_file(config, &images)? {
        match multipart(job.id, &input) {
            Ok((boundary, body)) => {
                let mut request = post(config, "/images/edits")
                    .header("content-type", format!("multipart/form-data; boundary={boundary}"));
                request.body = body;
                request
            }
            Err(unreadable) => return Ok(Err(unreadable)),
        }
    } else {
        post(config, "/images/edits").json_body(json_edit(input).to_string())
    };
    Ok(Ok(request))
}

fn post(config: &Config, path: &str) -> HttpRequest {
    let mut request = HttpRequest::submit(config.base.join(path)).timeout_ms(config.timeout_ms);
    for (name, value) in &config.headers {
        request = request.header(name.clone(), value.clone());
    }
    request.header("accept", "application/json")
}

/// The images of an input; what is no text is none.
fn urls(value: &Value) -> Vec<&str> {
    match value {
        Value::String(url) if !url.is_empty() => vec![url],
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is_data(url: &str) -> bool {
    url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"))
}

/// Whether images go as files. We have no way to fetch a link: requests go to the API's host only.
fn as_file(config: &Config, images: &[&str]) -> Result<bool, Fault> {
    let all_here = images.iter().all(|url| is_data(url));
    match config.edits {
        Edits::Json => Ok(false),
        Edits::Auto => Ok(all_here),
        Edits::Multipart if all_here => Ok(true),
        Edits::Multipart => Err(Fault::new(
            FaultCode::BadInput,
            "the reference image is a link, and config.edits is \"multipart\", which needs the bytes: leave PUBLIC_URL \
             unset, or use \"auto\" if the server takes links as JSON",
        )),
    }
}

/// The JSON form of an edit: `images` is a list of `{"image_url": ...}`, and a mask is one such object.
fn json_edit(mut input: Map<String, Value>) -> Value {
    let reference = |url: &str| serde_json::json!({ "image_url": url });
    if let Some(image) = input.remove("image") {
        let images: Vec<Value> = urls(&image).into_iter().map(reference).collect();
        input.insert("images".into(), images.into());
    }
    if let Some(Value::String(mask)) = input.get("mask") {
        let mask = reference(mask);
        input.insert("mask".into(), mask);
    }
    Value::Object(input)
}

/// The form: every input is a text field, every image a file.
fn multipart(id: &str, input: &Map<String, Value>) -> Result<(String, Vec<u8>), Unreadable> {
    let mut files = Vec::new();
    for name in IMAGES {
        let images = input.get(name).map(urls).unwrap_or_default();
        let field = if images.len() > 1 {
            format!("{name}[]")
        } else {
            name.to_owned()
        };
        for url in images {
            let (content_type, bytes) = decode(url)?;
            files.push((field.clone(), content_type, bytes));
        }
    }
    let texts: Vec<(String, String)> = input
        .iter()
        .filter(|(name, value)| !IMAGES.contains(&name.as_str()) && !value.is_null())
        .map(|(name, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (escape(name), text)
        })
        .collect();
    let boundary = boundary(id, &texts, &files);
    let mut body = Vec::new();
    let mut part = |head: String, content: &[u8]| {
        body.extend_from_slice(format!("--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n").as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    };
    for (name, text) in &texts {
        part(format!("name=\"{name}\""), text.as_bytes());
    }
    for (name, content_type, bytes) in &files {
        let extension = content_type.rsplit('/').next().unwrap_or("png");
        let head = format!("name=\"{name}\"; filename=\"image.{extension}\"\r\nContent-Type: {content_type}");
        part(head, bytes);
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    Ok((boundary, body))
}

/// A text that is in none of the parts, the same one every time.
fn boundary(id: &str, texts: &[(String, String)], files: &[(String, String, Vec<u8>)]) -> String {
    let mut boundary = format!("velro-{}", escape(id).replace('%', "-"));
    boundary.truncate(60);
    let is_in = |content: &[u8], boundary: &str| {
        content
            .windows(boundary.len().max(1))
            .any(|window| window == boundary.as_bytes())
    };
    // Somebody who knows the id can put it into a prompt, but not every continuation of it.
    for n in 0u32..100 {
        let taken = texts.iter().any(|(_, text)| is_in(text.as_bytes(), &boundary))
            || files.iter().any(|(_, _, bytes)| is_in(bytes, &boundary));
        if !taken {
            break;
        }
        boundary = format!("{}-{n}", boundary.get(..50).unwrap_or(&boundary));
    }
    boundary
}

/// Content type and bytes of `data:image/png;base64,...`.
fn decode(url: &str) -> Result<(String, Vec<u8>), Unreadable> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let (head, data) = url.get(5..).and_then(|rest| rest.split_once(',')).ok_or(Unreadable)?;
    let content_type = head.strip_suffix(";base64").ok_or(Unreadable)?;
    let known = ["image/png", "image/jpeg", "image/webp", "image/gif"];
    if !known.contains(&content_type) {
        return Err(Unreadable);
    }
    let bytes = LENIENT.decode(data.trim()).map_err(|_| Unreadable)?;
    Ok((content_type.to_owned(), bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_boundary_is_in_no_part() {
        let texts = vec![("prompt".to_owned(), "velro-1 and velro-1-0".to_owned())];
        assert_eq!(boundary("1", &texts, &[]), "velro-1-0-1");
        assert_eq!(boundary("2", &texts, &[]), "velro-2");
    }

    #[test]
    fn data_urls() {
        assert_eq!(decode("data:image/png;base64,aGk").ok().unwrap().1, b"hi");
        assert_eq!(decode("DATA:image/png;base64,aGk=").ok().unwrap().1, b"hi");
        for wrong in [
            "data:",
            "data:image/png,hi",
            "data:text/html;base64,aGk=",
            "data:image/png;base64,!",
        ] {
            assert!(decode(wrong).is_err(), "{wrong}");
        }
    }
}
