//! Where FAL's jobs live: from an endpoint id to the URLs of one request, and which URLs we believe.

use serde::{Deserialize, Serialize};
use url::Url;
use velro_plugin::{Value, escape};

/// The queue's base URL.
#[derive(Debug, Clone)]
pub(super) struct Base {
    text: String,
    scheme: String,
    host: String,
}

/// The three addresses of a submitted job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Urls {
    pub(super) status: String,
    pub(super) result: String,
    pub(super) cancel: String,
}

impl Base {
    /// Reads a base URL; the error is a sentence for the operator.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim_end_matches('/');
        let url = Url::parse(text).map_err(|e| format!("`{text}` is not a URL: {e}"))?;
        let host = host_of(&url).ok_or_else(|| format!("`{text}` must be an http(s) URL with a host and no user"))?;
        Ok(Base {
            text: text.to_owned(),
            scheme: url.scheme().to_owned(),
            host,
        })
    }

    /// `host` or `host:port`, as a manifest lists it.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Where a job for this endpoint is submitted.
    pub(super) fn endpoint(&self, model: &str) -> String {
        format!("{}/{}", self.text, path(model.split('/')))
    }

    /// The URLs of a request, built from its endpoint and id.
    pub(super) fn urls(&self, model: &str, request_id: &str) -> Urls {
        let app = app_id(model);
        let result = format!("{}/{}/requests/{}", self.text, path(app.split('/')), escape(request_id));
        Urls {
            status: format!("{result}/status"),
            cancel: format!("{result}/cancel"),
            result,
        }
    }

    /// The URLs of a submit's answer, each replaced by the built one unless it is on the queue's own host.
    pub(super) fn urls_of(&self, answer: &Value, model: &str, request_id: &str) -> Urls {
        let built = self.urls(model, request_id);
        let pick = |name: &str, built: String| match answer[name].as_str() {
            Some(url) if self.is_ours(url) => url.to_owned(),
            _ => built,
        };
        Urls {
            status: pick("status_url", built.status),
            result: pick("response_url", built.result),
            cancel: pick("cancel_url", built.cancel),
        }
    }

    /// The key is sent there, so nothing but the configured host and scheme will do.
    fn is_ours(&self, text: &str) -> bool {
        text.len() <= 2_048
            && !text.contains("{{")
            && Url::parse(text).is_ok_and(|url| {
                url.scheme() == self.scheme
                    && url.fragment().is_none()
                    && host_of(&url).as_deref() == Some(self.host.as_str())
            })
    }
}

fn host_of(url: &Url) -> Option<String> {
    if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    let host = url.host_str()?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

fn path<'a>(segments: impl Iterator<Item = &'a str>) -> String {
    segments
        .filter(|s| !s.is_empty())
        .map(escape)
        .collect::<Vec<_>>()
        .join("/")
}

/// `[namespace/]owner/alias` of an endpoint id: status, result and cancel leave the rest of it out.
pub(super) fn app_id(model: &str) -> String {
    let parts: Vec<&str> = model.split('/').filter(|s| !s.is_empty()).collect();
    match parts.as_slice() {
        [namespace @ ("workflows" | "comfy"), owner, alias, ..] => format!("{namespace}/{owner}/{alias}"),
        [owner, alias, ..] => format!("{owner}/{alias}"),
        // The legacy form: the owner's number, a dash, the name.
        [one] => match one.split_once('-') {
            Some((owner, alias)) if !owner.is_empty() && owner.bytes().all(|b| b.is_ascii_digit()) => {
                format!("{owner}/{alias}")
            }
            _ => (*one).to_owned(),
        },
        [] => String::new(),
    }
}
