//! An answer before it is written, and the ways of damaging it on the way out.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use salvo::http::{HeaderName, HeaderValue, StatusCode};
use salvo::{ConnCtrl, Request, Response};
use serde_json::{Value, json};

use super::errors::Failure;
use super::faults::Action;

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) content_type: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
}

impl Reply {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            content_type: "application/json".to_owned(),
            headers: Vec::new(),
            body: body.to_string().into(),
        }
    }

    /// `{"detail": text}`, FAL's shape for refusals outside a model.
    pub(super) fn detail(status: u16, text: &str) -> Self {
        Self::json(status, &json!({ "detail": text }))
    }

    pub(super) fn failure(failure: &Failure) -> Self {
        let mut reply = Self::json(failure.status, &failure.body);
        reply.headers = failure.headers();
        reply
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// What a simulated fault status answers. 429 and 503 say when to come back, as gateways do.
    fn fault(status: u16) -> Self {
        let reply = Self::detail(status, &format!("Simulated failure {status}"));
        match status {
            429 | 503 => reply.header("retry-after", "1"),
            _ => reply,
        }
    }

    fn head(&self, res: &mut Response) {
        res.status_code(StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
        set(res, "content-type", &self.content_type);
        for (name, value) in &self.headers {
            set(res, name, value);
        }
    }

    fn write(self, res: &mut Response) {
        self.head(res);
        res.body(self.body);
    }
}

fn set(res: &mut Response, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        res.headers_mut().insert(HeaderName::from_static(name), value);
    }
}

/// The connection of the request, for cutting it.
pub(super) fn connection(req: &Request) -> Option<ConnCtrl> {
    req.extensions().get::<ConnCtrl>().cloned()
}

/// Closes the connection without a byte. Never returns: the connection's task, and this with it, is dropped.
pub(super) async fn cut(connection: Option<ConnCtrl>) {
    if let Some(connection) = connection {
        connection.abort();
    }
    std::future::pending().await
}

/// The part of a fault that comes instead of the operation. `Some` is the answer; `None` means carry on.
pub(super) async fn before(fault: Option<&Action>, conn: Option<ConnCtrl>) -> Option<Reply> {
    match fault {
        Some(Action::Status(status)) => Some(Reply::fault(*status)),
        Some(Action::Cut) => {
            cut(conn).await;
            None
        }
        Some(Action::Hang) => std::future::pending().await,
        Some(Action::Slow(ms)) => {
            tokio::time::sleep(Duration::from_millis(*ms)).await;
            None
        }
        _ => None,
    }
}

/// Writes the answer, damaged as the fault says.
pub(super) async fn write(reply: Reply, fault: Option<&Action>, conn: Option<ConnCtrl>, res: &mut Response) {
    match fault {
        Some(Action::ThenStatus(status)) => Reply::fault(*status).write(res),
        Some(Action::ThenCut) => cut(conn).await,
        Some(Action::ThenHang) => std::future::pending().await,
        Some(Action::HalfBody) => half(reply, res),
        Some(Action::Garbage) => Reply {
            body: Bytes::from_static(b"{\"status\": \"IN_\xff\xfe"),
            ..reply
        }
        .write(res),
        Some(Action::WrongContentType) => Reply {
            content_type: "text/html; charset=utf-8".to_owned(),
            body: Bytes::from_static(b"<html><body><h1>Welcome</h1></body></html>"),
            ..reply
        }
        .write(res),
        _ => reply.write(res),
    }
}

/// Announces the whole body, sends half of it and breaks off.
fn half(reply: Reply, res: &mut Response) {
    reply.head(res);
    set(res, "content-length", &reply.body.len().to_string());
    let first = reply.body.slice(..reply.body.len() / 2);
    res.stream(stream::unfold(Some(first), |first| async move {
        if let Some(first) = first {
            return Some((Ok(first), None));
        }
        // The server writes out what it has while it waits for more; without a wait not even the head would leave.
        tokio::task::yield_now().await;
        let broken = std::io::Error::other("simulated break in the middle");
        Some((Err(broken), None))
    }));
}

/// Sends the body in chunks of a kilobyte with a wait before each.
pub(super) fn trickle(reply: Reply, wait_ms: u64, res: &mut Response) {
    reply.head(res);
    let rest = reply.body;
    res.stream(stream::unfold(rest, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        let chunk = rest.split_to(rest.len().min(1024));
        Some((Ok::<_, Infallible>(chunk), rest))
    }));
}

/// Sends so many bytes without announcing how many: the first are the real ones, the rest are zeros.
pub(super) fn oversized(reply: Reply, total_bytes: u64, res: &mut Response) {
    const CHUNK: usize = 64 * 1024;
    reply.head(res);
    let first = Some(reply.body);
    res.stream(stream::unfold((first, total_bytes), |(first, left)| async move {
        if left == 0 {
            return None;
        }
        let mut chunk = first.unwrap_or_else(|| Bytes::from_static(&[0; CHUNK]));
        chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        let left = left - chunk.len() as u64;
        Some((Ok::<_, Infallible>(chunk), (None, left)))
    }));
}
