//! Where traces go: an OTLP collector.

use super::layers::Layers;
use super::resolve;
use super::secret::Secret;

/// `[tracing]`; without an endpoint nothing of it has an effect.
#[derive(Debug, Clone, Default)]
pub struct TracingConfig {
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` without a trailing slash; OTLP over HTTP with protobuf.
    pub otlp_endpoint: Option<String>,
    /// `OTEL_EXPORTER_OTLP_HEADERS`.
    pub otlp_headers: Vec<(String, Secret)>,
    /// `OTEL_TRACES_SAMPLER_ARG`: which part of the traces is sent, from 0 to 1.
    pub sample_ratio: f64,
}

impl TracingConfig {
    /// The names of the headers; their values are secret.
    pub(super) fn headers_shown(&self) -> String {
        match self.otlp_headers.is_empty() {
            true => "not set".to_owned(),
            false => {
                let names: Vec<&str> = self.otlp_headers.iter().map(|(name, _)| name.as_str()).collect();
                format!("{} (values not shown)", names.join(", "))
            }
        }
    }
}

pub(super) fn tracing(layers: &Layers) -> TracingConfig {
    TracingConfig {
        otlp_endpoint: resolve::url(layers, "tracing.otlp_endpoint"),
        otlp_headers: headers(layers),
        sample_ratio: ratio(layers),
    }
}

/// `name=value,name=value`, with the values as they are or percent-encoded (W3C Baggage, as OpenTelemetry has it).
fn headers(layers: &Layers) -> Vec<(String, Secret)> {
    let key = "tracing.otlp_headers";
    let text = layers.text(key);
    let mut headers = Vec::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let header = pair.split_once('=').and_then(|(name, value)| {
            let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8().ok()?;
            http_header(name.trim(), &value).then(|| (name.trim().to_owned(), Secret::new(value)))
        });
        match header {
            Some(header) => headers.push(header),
            None => {
                // Not repeated in the message: it is a secret.
                layers.fault_of(
                    key,
                    "is not a list of headers",
                    "write name=value, with commas between them",
                );
                return Vec::new();
            }
        }
    }
    headers
}

/// What a header may be: a token, and visible text.
fn http_header(name: &str, value: &str) -> bool {
    let token = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    let visible = |c: u8| (b' '..=b'~').contains(&c);
    !name.is_empty() && name.bytes().all(token) && value.bytes().all(visible)
}

fn ratio(layers: &Layers) -> f64 {
    let key = "tracing.sample_ratio";
    match layers.json(key) {
        Some(Ok(value)) if value.as_f64().is_some_and(|ratio| (0.0..=1.0).contains(&ratio)) => {
            value.as_f64().unwrap_or(1.0)
        }
        _ => {
            layers.fault_of(
                key,
                "is not a number from 0 to 1",
                "write for example 0.1 for every tenth trace",
            );
            1.0
        }
    }
}
