//! The body of `POST /generations`: JSON, a URL-encoded form or a multipart form with an optional file. One document
//! for all three; forms carry `parameters` as JSON text.

use salvo::extract::{Extractible, Metadata};
use salvo::http::form::FormLimits;
use salvo::oapi::{
    BasicType, Components, Content, EndpointArgRegister, KnownFormat, Object, Operation, RequestBody, Required,
    SchemaFormat, ToSchema,
};
use salvo::{Depot, Request, Writer};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::sync::OnceLock;

use super::call::{Call, CallBody, PARAMETERS_MAX_CHARS};
use crate::clock;
use crate::http::input::{from_json, json, refuse_too_large, serde_path, services};
use crate::http::problem::{Code, FieldError, Problem, Result};
use crate::http::room::Aside;
use crate::http::{Caller, Services};
use crate::outputs::UploadError;

/// Longest negative prompt, in characters.
const NEGATIVE_PROMPT_MAX_CHARS: usize = 1000;
/// Longest text value of a parameter, in characters.
const PARAMETER_TEXT_MAX_CHARS: usize = 1000;
/// Longest list value of a parameter.
const PARAMETER_LIST_MAX: usize = 100;
/// Parts of a multipart form; the contract has seven fields.
const FORM_PARTS_MAX: usize = 32;

/// A call as read from the body, with the bytes of its reference image if one was uploaded.
pub struct CreateCall {
    /// The call; its reference image URL is set by [`CreateCall::stored`].
    pub call: Call,
    upload: Option<Vec<u8>>,
}

/// The fields of a form.
#[derive(Debug, Deserialize, ToSchema)]
#[salvo(schema(name = "GenerationForm", example = json!({
    "model_id": "sandbox/image", "prompt": "a lighthouse in the fog", "parameters": "{\"image_size\": \"square\"}"
})))]
#[allow(dead_code, reason = "documentation: forms are read field by field")]
struct FormFields {
    #[salvo(schema(min_length = 1, max_length = 100))]
    model_id: String,
    #[salvo(schema(min_length = 1))]
    prompt: String,
    #[salvo(schema(max_length = 1000))]
    negative_prompt: Option<String>,
    /// A picture to start from, where the model supports it; http or https.
    reference_image_url: Option<String>,
    /// A JSON object as text; values are texts, numbers, booleans or lists of these.
    #[salvo(schema(max_length = 10000))]
    parameters: Option<String>,
    #[salvo(schema(format = "uuid"))]
    project_id: Option<String>,
}

impl CreateCall {
    async fn read(req: &mut Request, services: &Services) -> Result<CreateCall> {
        let config = &services.config;
        let kind = req.content_type();
        let essence = kind.as_ref().map(|m| m.essence_str().to_ascii_lowercase());
        let (body, upload) = match essence.as_deref() {
            Some("application/x-www-form-urlencoded") => (read_form(req, config.max_body_bytes).await?, None),
            Some("multipart/form-data") => {
                let body = read_form(req, config.max_body_bytes.saturating_add(config.max_upload_bytes)).await?;
                (body, read_upload(req, config.max_upload_bytes).await?)
            }
            Some(other) if other != "application/json" && !other.ends_with("+json") => {
                return Err(Problem::new(
                    Code::UnsupportedMediaType,
                    "Send the body as multipart/form-data, application/x-www-form-urlencoded or application/json",
                ));
            }
            _ => (json(req, config.max_body_bytes).await?, None),
        };
        let mut call = check(body)?.clean()?;
        if let Some(bytes) = &upload {
            if call.reference_image_url.is_some() {
                return Err(Problem::field(
                    &["body", "reference_image"],
                    "give either reference_image or reference_image_url, not both",
                    "conflict",
                ));
            }
            call.upload_sha256 = Some(hex::encode(Sha256::digest(bytes)));
        }
        Ok(CreateCall { call, upload })
    }

    /// Stores the upload, if there is one, and answers the call with its URL. The same bytes are stored once.
    pub async fn stored(self, services: &Services, caller: &Caller) -> Result<Call> {
        let mut call = self.call;
        if let Some(bytes) = self.upload {
            let key = match services.outputs.store_upload(caller.user_id, &bytes).await {
                Ok(key) => key,
                Err(error @ UploadError::TooLarge(_)) => return Err(Problem::new(Code::TooLarge, error.to_string())),
                Err(error @ UploadError::NotAnImage) => {
                    let field = ["body", "reference_image"];
                    return Err(Problem::field(&field, error.to_string(), "image"));
                }
                Err(UploadError::Disk(error)) => return Err(Problem::internal(error)),
            };
            call.reference_image_url = Some(services.outputs.sign(&key, clock::now()));
        }
        Ok(call)
    }
}

/// The text fields of a form as the JSON body they stand for.
async fn read_form(req: &mut Request, max_bytes: u64) -> Result<CallBody> {
    req.set_form_limits(FormLimits::new().max_parts(FORM_PARTS_MAX).max_files(2));
    refuse_too_large(req, max_bytes).await?;
    let aside = Aside::of(req);
    let form = aside.read(req.form_data_max_size(max_bytes as usize)).await??;
    let mut body = Map::new();
    for name in [
        "model_id",
        "prompt",
        "negative_prompt",
        "reference_image_url",
        "project_id",
    ] {
        if let Some(text) = form.fields.get(name) {
            body.insert(name.to_owned(), Value::from(text.as_str()));
        }
    }
    if let Some(text) = form.fields.get("parameters").filter(|t| !t.trim().is_empty()) {
        body.insert("parameters".to_owned(), parameters_of(text)?);
    }
    serde_path(Value::Object(body), "body")
}

fn parameters_of(text: &str) -> Result<Value> {
    let rule = |msg: String, kind: &str| Problem::field(&["body", "parameters"], msg, kind);
    if text.chars().count() > PARAMETERS_MAX_CHARS {
        return Err(rule(
            format!("must be at most {PARAMETERS_MAX_CHARS} characters"),
            "too_long",
        ));
    }
    let value: Value = from_json(text.as_bytes(), "parameters").map_err(|_| {
        rule(
            "must be a JSON object as text, for example {\"num_images\": 2}".into(),
            "json",
        )
    })?;
    match value.is_object() {
        true => Ok(value),
        false => Err(rule("must be a JSON object".into(), "type")),
    }
}

/// The uploaded file. A browser sends an empty one when none was chosen.
async fn read_upload(req: &mut Request, max_bytes: u64) -> Result<Option<Vec<u8>>> {
    let form = req.form_data().await?;
    let Some(file) = form.files.get("reference_image").filter(|f| f.size() > 0) else {
        return Ok(None);
    };
    if file.size() > max_bytes {
        return Err(Problem::new(
            Code::TooLarge,
            format!("reference_image is larger than {max_bytes} bytes"),
        ));
    }
    let bytes = tokio::fs::read(file.path()).await.map_err(Problem::internal)?;
    Ok(Some(bytes))
}

/// What the contract's form asks beyond the rules of all calls.
fn check(body: CallBody) -> Result<CallBody> {
    let mut errors = Vec::new();
    let length = body.negative_prompt.as_deref().map_or(0, |t| t.chars().count());
    if length > NEGATIVE_PROMPT_MAX_CHARS {
        let rule = format!("must be at most {NEGATIVE_PROMPT_MAX_CHARS} characters");
        errors.push(FieldError::new(&["body", "negative_prompt"], rule, "too_long"));
    }
    for (name, value) in body.parameters.iter().flatten() {
        if let Err(rule) = check_value(value) {
            errors.push(FieldError::new(&["body", "parameters", name], rule, "type"));
        }
    }
    match errors.is_empty() {
        true => Ok(body),
        false => Err(Problem::fields(errors)),
    }
}

fn check_value(value: &Value) -> std::result::Result<(), String> {
    match value {
        Value::String(text) if text.chars().count() > PARAMETER_TEXT_MAX_CHARS => {
            Err(format!("must be at most {PARAMETER_TEXT_MAX_CHARS} characters"))
        }
        Value::String(_) | Value::Number(_) | Value::Bool(_) => Ok(()),
        Value::Array(items) if items.len() > PARAMETER_LIST_MAX => {
            Err(format!("must have at most {PARAMETER_LIST_MAX} items"))
        }
        Value::Array(items) if items.iter().all(|i| !i.is_array()) => items.iter().try_for_each(check_value),
        _ => Err("must be a text, a number, true, false, or a list of these".to_owned()),
    }
}

impl<'ex> Extractible<'ex> for CreateCall {
    fn metadata() -> &'static Metadata {
        static METADATA: OnceLock<Metadata> = OnceLock::new();
        METADATA.get_or_init(|| Metadata::new("CreateCall"))
    }

    #[allow(refining_impl_trait)]
    async fn extract(
        req: &'ex mut Request,
        depot: &'ex mut Depot,
    ) -> std::result::Result<Self, impl Writer + Send + std::fmt::Debug + 'static> {
        CreateCall::read(req, services(depot)?).await
    }
}

impl EndpointArgRegister for CreateCall {
    fn register(components: &mut Components, operation: &mut Operation, _arg: &str) {
        let fields = FormFields::to_schema(components);
        let file = Object::new()
            .schema_type(BasicType::String)
            .format(SchemaFormat::KnownFormat(KnownFormat::Binary))
            .description("A picture to start from: PNG, JPEG, WebP or GIF.");
        let with_file = salvo::oapi::schema::AllOf::new()
            .item(fields.clone())
            .item(Object::new().property("reference_image", file));
        let body = RequestBody::new()
            .required(Required::True)
            .add_content("application/json", Content::new(CallBody::to_schema(components)))
            .add_content(
                "multipart/form-data",
                Content::new(salvo::oapi::Schema::from(with_file)),
            )
            .add_content("application/x-www-form-urlencoded", Content::new(fields));
        operation.request_body = Some(body);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use serde_json::json;

    #[test]
    fn parameters_of_a_form_are_an_object_as_text() {
        assert_eq!(parameters_of("{\"num_images\": 2}").unwrap(), json!({"num_images": 2}));
        for bad in ["[]", "2", "{", "null", &format!("{{\"a\":\"{}\"}}", "x".repeat(10_000))] {
            assert_eq!(parameters_of(bad).unwrap_err().code(), Code::Invalid, "{bad:.20}");
        }
    }

    #[test]
    fn values_are_scalars_or_lists_of_scalars() {
        for good in [
            json!("a"),
            json!(1),
            json!(1.5),
            json!(true),
            json!([1, "a"]),
            json!([]),
        ] {
            assert!(check_value(&good).is_ok(), "{good}");
        }
        for bad in [
            json!(null),
            json!({}),
            json!([[1]]),
            json!([null]),
            json!("x".repeat(1001)),
            json!(vec![1; 101]),
        ] {
            assert!(check_value(&bad).is_err(), "{bad}");
        }
    }
}
