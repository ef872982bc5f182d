//! An OTLP collector: takes spans over HTTP with protobuf, as the official definition reads them, and keeps them for tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use prost::Message as _;
use salvo::conn::tcp::TcpAcceptor;
use salvo::http::StatusCode;
use salvo::{Depot, Request, Response, Router, Server, handler};

/// A span as a test looks at it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// Hex.
    pub trace_id: String,
    /// Hex.
    pub span_id: String,
    /// Hex; empty for the first span of a trace.
    pub parent_id: String,
    /// Nanoseconds since the Unix epoch.
    pub start_ns: u64,
    /// Nanoseconds since the Unix epoch.
    pub end_ns: u64,
    /// As text.
    pub attributes: BTreeMap<String, String>,
    /// Of the process that sent it, as text.
    pub resource: BTreeMap<String, String>,
}

#[derive(Default)]
struct Book {
    spans: Vec<Seen>,
    /// `authorization` of the newest batch.
    authorization: Option<String>,
}

/// A running collector; it stops when it is dropped.
pub struct Collector {
    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub base_url: String,
    book: Arc<Mutex<Book>>,
    server: tokio::task::JoinHandle<()>,
}

impl Collector {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn start() -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let base_url = format!("http://{}", listener.local_addr()?);
        let book = Arc::new(Mutex::new(Book::default()));
        let take = Take(Arc::clone(&book));
        let router = Router::new()
            .hoop(take)
            .push(Router::with_path("v1/traces").post(export));
        let server = Server::new(TcpAcceptor::try_from(listener).context("a listener is an acceptor")?);
        let server = tokio::spawn(async move { server.serve(router).await });
        Ok(Self { base_url, book, server })
    }

    /// All spans so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Seen> {
        lock(&self.book).spans.clone()
    }

    /// What the newest batch was sent with.
    #[must_use]
    pub fn authorization(&self) -> Option<String> {
        lock(&self.book).authorization.clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives the book to the handler.
struct Take(Arc<Mutex<Book>>);

#[handler]
impl Take {
    async fn handle(&self, depot: &mut Depot) {
        depot.insert_typed(Arc::clone(&self.0));
    }
}

#[handler]
async fn export(req: &mut Request, depot: &mut Depot, res: &mut Response) {
    let authorization = req.header::<String>("authorization");
    let body = req.payload_with_max_size(16 << 20).await.cloned().unwrap_or_default();
    let batch = match ExportTraceServiceRequest::decode(body) {
        Ok(batch) if req.header::<String>("content-type").as_deref() == Some("application/x-protobuf") => batch,
        _ => {
            res.status_code(StatusCode::BAD_REQUEST);
            return;
        }
    };
    let Ok(book) = depot.get_typed::<Arc<Mutex<Book>>>() else {
        res.status_code(StatusCode::INTERNAL_SERVER_ERROR);
        return;
    };
    let mut book = lock(book);
    book.authorization = authorization;
    for group in batch.resource_spans {
        let resource = texts(&group.resource.unwrap_or_default().attributes);
        for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            book.spans.push(Seen {
                name: span.name,
                trace_id: hex::encode(span.trace_id),
                span_id: hex::encode(span.span_id),
                parent_id: hex::encode(span.parent_span_id),
                start_ns: span.start_time_unix_nano,
                end_ns: span.end_time_unix_nano,
                attributes: texts(&span.attributes),
                resource: resource.clone(),
            });
        }
    }
    let answer = ExportTraceServiceResponse::default().encode_to_vec();
    res.add_header("content-type", "application/x-protobuf", true).ok();
    res.write_body(answer).ok();
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| {
        let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
        let text = match value {
            Some(Value::StringValue(text)) => text.clone(),
            Some(Value::IntValue(number)) => number.to_string(),
            Some(Value::BoolValue(flag)) => flag.to_string(),
            Some(Value::DoubleValue(number)) => number.to_string(),
            other => format!("{other:?}"),
        };
        (pair.key.clone(), text)
    };
    attributes.iter().map(text).collect()
}
