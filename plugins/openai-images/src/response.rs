//! Reads the answer: the pictures are named where they are, never copied.

use velro_plugin::{Map, Outcome, Output, Quote, Source, Value};

/// What the API delivered. `None` when the answer is none of the API's at all.
pub(crate) fn outcome(body: &Value) -> Option<Outcome> {
    let data = body["data"].as_array()?;
    let outputs = data.iter().enumerate().filter_map(|(at, image)| {
        let source = match (image["b64_json"].as_str(), image["url"].as_str()) {
            (Some(base64), _) if !base64.is_empty() => Source::BodyBase64(format!("/data/{at}/b64_json")),
            (_, Some(url)) if is_file(url) => Source::Url(url.to_owned()),
            _ => return None,
        };
        let mut output = Output::url("image", "");
        output.source = source;
        if let Some(prompt) = image["revised_prompt"].as_str().filter(|p| p.len() <= 4_096) {
            output.meta.insert("revised_prompt".into(), prompt.into());
        }
        Some(output)
    });
    let outputs = outputs.collect();
    let mut meta = Map::new();
    if body["usage"].is_object() {
        meta.insert("usage".into(), body["usage"].clone());
    }
    let tokens = body["usage"]["total_tokens"].as_u64();
    Some(Outcome {
        outputs,
        // Tokens in and out have different prices, and the details are in the metadata; the sum is what can be counted.
        billed: tokens
            .and_then(|tokens| tokens.checked_mul(1_000))
            .map(|units_milli| Quote {
                usd_micros: 0,
                unit: "token".into(),
                units_milli,
            }),
        meta,
    })
}

fn is_file(text: &str) -> bool {
    ["https://", "http://", "data:"]
        .iter()
        .any(|scheme| text.starts_with(scheme))
}
