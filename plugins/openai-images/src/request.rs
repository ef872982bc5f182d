//! The one request of a job: a generation, or an edit when there is a reference image.

use velro_plugin::{DataUrl, Fault, FaultCode, Form, HttpRequest, Job, Map, Value};

use crate::config::{Config, Edits};

/// Inputs that are images: links or `data:` URLs, one or a list.
const IMAGES: [&str; 2] = ["image", "mask"];

/// What the API takes as a file.
const FORMATS: [&str; 4] = ["image/png", "image/jpeg", "image/webp", "image/gif"];

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
        match form(&input) {
            Ok(form) => form.body_of(post(config, "/images/edits"), job.id),
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

/// Whether images go as files. We have no way to fetch a link: requests go to the API's host only.
fn as_file(config: &Config, images: &[&str]) -> Result<bool, Fault> {
    let all_here = images.iter().all(|url| DataUrl::is(url));
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
fn form(input: &Map<String, Value>) -> Result<Form, Unreadable> {
    let mut form = Form::new();
    for (name, value) in input {
        if IMAGES.contains(&name.as_str()) || value.is_null() {
            continue;
        }
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        form = form.text(name, &text);
    }
    for name in IMAGES {
        let images = input.get(name).map(urls).unwrap_or_default();
        let field = if images.len() > 1 {
            format!("{name}[]")
        } else {
            name.to_owned()
        };
        for url in images {
            let known = |data: &DataUrl| FORMATS.contains(&data.content_type.as_str());
            let data = DataUrl::parse(url).filter(known).ok_or(Unreadable)?;
            let file_name = format!("{name}.{}", data.extension());
            form = form.file(&field, &file_name, data);
        }
    }
    Ok(form)
}
