//! The `config` table of the provider entry.

use serde::Deserialize;
use velro_plugin::{BaseUrl, Fault, FaultCode, read_config};

/// What an operator may set; the key itself is not among it, only the header it goes into.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default = "api")]
    base_url: String,
    #[serde(default = "bearer")]
    api_key_header: String,
    #[serde(default)]
    organization: Option<String>,
    #[serde(default)]
    project: Option<String>,
    #[serde(default = "three_minutes")]
    timeout_ms: u32,
    #[serde(default)]
    edits: Edits,
}

/// How a reference image is sent to `/images/edits`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Edits {
    /// A link as JSON, the bytes of a `data:` URL as a file.
    #[default]
    Auto,
    /// Always JSON: `images: [{"image_url": ...}]`.
    Json,
    /// Always a file, which needs a `data:` URL.
    Multipart,
}

fn api() -> String {
    "https://api.openai.com/v1".into()
}

fn bearer() -> String {
    "authorization: Bearer".into()
}

fn three_minutes() -> u32 {
    180_000
}

/// The configuration, checked.
#[derive(Debug)]
pub(crate) struct Config {
    /// Where the API is.
    pub(crate) base: BaseUrl,
    /// Headers of every request, with the key's placeholder.
    pub(crate) headers: Vec<(String, String)>,
    /// Whether a key is sent.
    pub(crate) has_key: bool,
    /// How long an answer may take, in milliseconds.
    pub(crate) timeout_ms: u32,
    pub(crate) edits: Edits,
}

impl Config {
    pub(crate) fn read(config: &[u8]) -> Result<Self, Fault> {
        let table: Table = read_config(config)?;
        if !(1_000..=600_000).contains(&table.timeout_ms) {
            return Err(fault("timeout_ms", "must be from 1000 to 600000"));
        }
        let mut headers = Vec::new();
        let has_key = !table.api_key_header.is_empty();
        if has_key {
            headers.push(key_header(&table.api_key_header)?);
        }
        for (field, name, value) in [
            ("organization", "openai-organization", table.organization),
            ("project", "openai-project", table.project),
        ] {
            if let Some(value) = value {
                if !is_plain(&value) {
                    return Err(fault(field, "must be an id, of letters, digits, `-` and `_`"));
                }
                headers.push((name.to_owned(), value));
            }
        }
        Ok(Config {
            base: BaseUrl::parse("config.base_url", &table.base_url)?,
            headers,
            has_key,
            timeout_ms: table.timeout_ms,
            edits: table.edits,
        })
    }
}

/// `authorization: Bearer` is a header and what stands before the key; `api-key` is a header with the key alone.
fn key_header(text: &str) -> Result<(String, String), Fault> {
    let (name, before) = text.split_once(':').unwrap_or((text, ""));
    let (name, before) = (name.trim().to_ascii_lowercase(), before.trim());
    if !is_plain(&name) || !(before.is_empty() || is_plain(before)) {
        return Err(fault(
            "api_key_header",
            "must be `header` or `header: word`, or empty for no key",
        ));
    }
    let space = if before.is_empty() { "" } else { " " };
    Ok((name, format!("{before}{space}{{{{secret:OPENAI_API_KEY}}}}")))
}

fn is_plain(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

fn fault(field: &str, rule: &str) -> Fault {
    Fault::new(FaultCode::BadInput, format!("config.{field}: {rule}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_the_key() {
        let told =
            |text: &str| Config::read(format!(r#"{{"api_key_header": "{text}"}}"#).as_bytes()).map(|c| c.headers);
        let one = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        assert_eq!(told("API-Key").unwrap(), one("api-key", "{{secret:OPENAI_API_KEY}}"));
        assert_eq!(
            told("x-auth: Token").unwrap(),
            one("x-auth", "Token {{secret:OPENAI_API_KEY}}")
        );
        assert_eq!(told("").unwrap(), []);
        assert!(told("a b").unwrap_err().message.starts_with("config.api_key_header: "));
        assert!(told("a: {{secret:B}}").is_err());
    }

    #[test]
    fn faults_name_the_field() {
        let fault = |text: &str| Config::read(text.as_bytes()).unwrap_err().message;
        assert!(fault(r#"{"timeout": 1}"#).contains("`timeout`"));
        assert!(fault(r#"{"timeout_ms": 1}"#).starts_with("config.timeout_ms: "));
        assert!(fault(r#"{"edits": "form"}"#).starts_with("config.edits: "));
        assert!(fault(r#"{"project": "a b"}"#).starts_with("config.project: "));
        assert!(fault(r#"{"base_url": "x"}"#).starts_with("`config.base_url` "));
        assert_eq!(Config::read(b"{}").unwrap().timeout_ms, 180_000);
    }
}
