//! Calls a service that the operator names in the configuration, such as the one that keeps the accounts.
//!
//! Its address is not checked like a provider's: nobody but the operator can set it, and it may well be on a private
//! network. All else holds: no redirects, no proxy of the environment, no repetition, bounded answers and times, and
//! neither URL nor header in a log.

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use std::time::Duration;
use url::Url;
use velro_plugin::Transport;

use super::transport_of;

/// How long a connection that is idle is used again; servers and load balancers keep them longer.
const IDLE: Duration = Duration::from_secs(20);

/// A request to a service.
#[derive(Clone, Copy)]
pub struct ServiceCall<'a> {
    /// `GET`, `POST` or `PUT`.
    pub method: ServiceMethod,
    /// Below the base, beginning with a slash, with its query.
    pub path: &'a str,
    /// Names in lower case; values are kept out of `Debug` texts of the HTTP library.
    pub headers: &'a [(&'static str, &'a str)],
    /// A JSON body.
    pub json: Option<&'a str>,
    /// For the whole exchange.
    pub timeout: Duration,
}

/// How a service is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ServiceMethod {
    Get,
    Post,
    Put,
    Delete,
}

/// Its answer, whatever the status.
pub struct ServiceAnswer {
    /// HTTP status.
    pub status: u16,
    headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl ServiceAnswer {
    /// A header's text; `None` when it is missing or not ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A client for one service.
pub struct Service {
    http: reqwest::Client,
    base: String,
    max_body_bytes: usize,
}

impl Service {
    /// A client for what is below `base`, a URL without a trailing slash. Fails when TLS cannot be set up or `base` is no URL.
    pub fn new(base: &str, connect_timeout: Duration, max_body_bytes: usize) -> anyhow::Result<Self> {
        Url::parse(base)?;
        let http = reqwest::Client::builder()
            .user_agent(concat!("velro/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .connect_timeout(connect_timeout)
            .pool_idle_timeout(IDLE)
            .build()?;
        Ok(Service {
            http,
            base: base.to_owned(),
            max_body_bytes,
        })
    }

    /// Performs a request, once. An HTTP error status is an answer.
    pub async fn call(&self, call: &ServiceCall<'_>) -> Result<ServiceAnswer, Transport> {
        let method = match call.method {
            ServiceMethod::Get => reqwest::Method::GET,
            ServiceMethod::Post => reqwest::Method::POST,
            ServiceMethod::Put => reqwest::Method::PUT,
            ServiceMethod::Delete => reqwest::Method::DELETE,
        };
        let mut request = self
            .http
            .request(method, format!("{}{}", self.base, call.path))
            .timeout(call.timeout);
        for (name, value) in call.headers {
            let Ok(mut value) = HeaderValue::from_str(value) else {
                return Err(Transport::NotSent);
            };
            value.set_sensitive(true);
            request = request.header(*name, value);
        }
        if let Some(json) = call.json {
            request = request.header(CONTENT_TYPE, "application/json").body(json.to_owned());
        }
        let mut answer = request.send().await.map_err(|e| transport_of(e, "no answer"))?;
        let (status, headers) = (answer.status().as_u16(), std::mem::take(answer.headers_mut()));
        let mut body = BytesMut::new();
        while let Some(piece) = answer.chunk().await.map_err(|e| transport_of(e, "broken answer"))? {
            if body.len() + piece.len() > self.max_body_bytes {
                return Err(Transport::BodyTooLarge);
            }
            body.extend_from_slice(&piece);
        }
        Ok(ServiceAnswer {
            status,
            headers,
            body: body.freeze(),
        })
    }
}
