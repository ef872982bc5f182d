//! What a provider's request may look like before it is sent, and where secrets are put in.

use reqwest::Method as HttpMethod;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::borrow::Cow;
use std::time::Duration;
use thiserror::Error;
use url::Url;
use velro_plugin::{HttpRequest, Method, escape};

use super::guard;
use crate::provider::LoadedProvider;

const OPEN: &str = "{{secret:";
const CLOSE: &str = "}}";
/// Longest URL, in bytes, before secrets are put in.
const MAX_URL_BYTES: usize = 8 << 10;
const MAX_HEADERS: usize = 64;

/// A request with its secrets filled in; has no `Debug` on purpose.
pub(super) struct Filled {
    method: HttpMethod,
    url: Url,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Filled {
    pub(super) fn into_request(self, timeout: Duration) -> reqwest::Request {
        let mut request = reqwest::Request::new(self.method, self.url);
        *request.headers_mut() = self.headers;
        *request.timeout_mut() = Some(timeout);
        if !self.body.is_empty() {
            *request.body_mut() = Some(self.body.into());
        }
        request
    }
}

/// Why a request was not sent; for the operator's log, free of values.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum Refusal {
    #[error("the URL is not valid")]
    Url,
    #[error("the URL is longer than 8 KiB")]
    UrlTooLong,
    #[error("the URL must use https (http only with UPSTREAM_ALLOW_PRIVATE=true)")]
    Scheme,
    #[error("the URL's host is not one of the provider's hosts")]
    Host,
    #[error("the URL names an address that is not public (allowed with UPSTREAM_ALLOW_PRIVATE=true)")]
    Address,
    #[error("the secret `{0}` is not set for this provider")]
    Secret(String),
    #[error("a placeholder of a secret is not closed, or stands outside the query and header values")]
    Placeholder,
    #[error("there are more than 64 headers")]
    TooManyHeaders,
    #[error("the header `{0}` is not allowed or not valid")]
    Header(String),
}

/// Checks a request and fills in its secrets.
pub(super) fn fill(provider: &LoadedProvider, request: &HttpRequest, allow_private: bool) -> Result<Filled, Refusal> {
    let url = filled_url(provider, &request.url, allow_private)?;
    if request.headers.len() > MAX_HEADERS {
        return Err(Refusal::TooManyHeaders);
    }
    let mut headers = HeaderMap::with_capacity(request.headers.len());
    for (name, value) in &request.headers {
        let refused = || Refusal::Header(name.chars().filter(char::is_ascii_graphic).take(64).collect());
        let header = HeaderName::try_from(name.as_ref()).map_err(|_| refused())?;
        if is_header_of_ours(header.as_str()) {
            return Err(refused());
        }
        let value = substitute(provider, value, |secret| Cow::Borrowed(secret))?;
        let mut filled = HeaderValue::try_from(value.as_ref()).map_err(|_| refused())?;
        filled.set_sensitive(true);
        headers.append(header, filled);
    }
    Ok(Filled {
        method: method_of(request.method),
        url,
        headers,
        body: request.body.clone(),
    })
}

fn filled_url(provider: &LoadedProvider, text: &str, allow_private: bool) -> Result<Url, Refusal> {
    if text.len() > MAX_URL_BYTES {
        return Err(Refusal::UrlTooLong);
    }
    if text.contains(['\\', '\t', '\r', '\n', ' ']) {
        return Err(Refusal::Url);
    }
    let (place, query) = match text.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (text, None),
    };
    if place.contains(OPEN) {
        return Err(Refusal::Placeholder);
    }
    // The host is decided before any secret is in reach.
    let mut url = Url::parse(place).map_err(|_| Refusal::Url)?;
    match url.scheme() {
        "https" => {}
        "http" if allow_private => {}
        _ => return Err(Refusal::Scheme),
    }
    if !url.username().is_empty() || url.password().is_some() || !is_listed(provider, &url) {
        return Err(Refusal::Host);
    }
    if !guard::address_allowed(&url, allow_private) {
        return Err(Refusal::Address);
    }
    if let Some(query) = query {
        let query = query.split('#').next().unwrap_or_default();
        let filled = substitute(provider, query, |secret| Cow::Owned(escape(secret)))?;
        url.set_query(Some(&filled));
    }
    Ok(url)
}

/// Exact match of host and port. An entry without a port means the scheme's own.
pub(super) fn is_listed(provider: &LoadedProvider, url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let full = url.port().map(|port| format!("{host}:{port}"));
    let wanted = full.as_deref().unwrap_or(host);
    provider.hosts.iter().any(|entry| entry.eq_ignore_ascii_case(wanted))
}

fn substitute<'t>(
    provider: &LoadedProvider,
    text: &'t str,
    encode: impl for<'s> Fn(&'s str) -> Cow<'s, str>,
) -> Result<Cow<'t, str>, Refusal> {
    if !text.contains(OPEN) {
        return Ok(Cow::Borrowed(text));
    }
    let mut filled = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        let (name, after) = after.split_once(CLOSE).ok_or(Refusal::Placeholder)?;
        let secret = provider
            .secrets
            .get(name)
            .filter(|_| provider.manifest.secrets.iter().any(|declared| declared == name))
            .ok_or_else(|| Refusal::Secret(name.chars().filter(char::is_ascii_graphic).take(64).collect()))?;
        filled.push_str(before);
        filled.push_str(&encode(secret.expose()));
        rest = after;
    }
    filled.push_str(rest);
    Ok(Cow::Owned(filled))
}

/// Headers, by their lower-case names, that belong to the connection or the client.
pub fn is_header_of_ours(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "content-length"
            | "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authorization"
            | "proxy-authenticate"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "expect"
    )
}

fn method_of(method: Method) -> HttpMethod {
    match method {
        Method::Get => HttpMethod::GET,
        Method::Post => HttpMethod::POST,
        Method::Put => HttpMethod::PUT,
        Method::Patch => HttpMethod::PATCH,
        Method::Delete => HttpMethod::DELETE,
        Method::Head => HttpMethod::HEAD,
    }
}

/// The part of a URL that may be logged.
pub(super) fn loggable(url: &str) -> &str {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    match url.get(..end.min(256)) {
        // Somebody's password may stand in front of the host.
        Some(text) if !text.contains('@') => text,
        _ => "(not shown)",
    }
}
