//! Traces for an OTLP collector: from the request over the queue to the attempts, whichever process does them.
//!
//! A generation keeps the `traceparent` of the request it came with; whoever works on it later goes on with that trace. Spans
//! are those of `tracing`; those that only a trace wants have the level `debug`, so that without a collector they cost
//! nothing. What they carry are ids, names and numbers: no prompt, no path with a query, no header.

use anyhow::Context as _;
use async_trait::async_trait;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span as _, SpanBuilder, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::clock::Micros;
use crate::config::Config;

/// The header of a parent, and its key in what is stored.
const TRACEPARENT: &str = "traceparent";

/// The scope of our spans.
const SCOPE: &str = "velro";

/// How long the collector may take for a batch.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the last spans may take when the process ends.
const LAST_PATIENCE: Duration = Duration::from_secs(3);

/// True while somebody is told of spans.
static ACTIVE: AtomicBool = AtomicBool::new(false);

/// The way to the collector; see [`Traces::close`].
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Opens the way to the configured collector; `None` when there is none. It is not asked whether it is there.
    pub(super) fn open(config: &Config) -> anyhow::Result<Option<(Traces, SdkTracer)>> {
        let Some(base) = &config.tracing.otlp_endpoint else {
            return Ok(None);
        };
        // A proxy of the environment is for the world outside.
        let http = reqwest::Client::builder()
            .no_proxy()
            // The headers are for this collector and nobody else.
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()?;
        let headers = &config.tracing.otlp_headers;
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), value.expose().to_owned()));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Sender {
                http,
                runtime: Handle::current(),
            })
            .with_endpoint(format!("{base}/v1/traces"))
            .with_headers(headers.collect())
            .with_timeout(PATIENCE)
            .build()
            .context("traces cannot be sent to OTEL_EXPORTER_OTLP_ENDPOINT")?;
        let resource = Resource::builder()
            .with_service_name(config.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("service.instance.id", uuid::Uuid::now_v7().to_string()))
            .with_attribute(KeyValue::new(
                "deployment.environment.name",
                config.environment.as_str(),
            ))
            .with_attribute(KeyValue::new("velro.role", config.role.as_str()))
            .build();
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.tracing.sample_ratio)));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .with_sampler(sampler)
            .build();
        let tracer = provider.tracer(SCOPE);
        global::set_tracer_provider(provider.clone());
        ACTIVE.store(true, Ordering::Relaxed);
        Ok(Some((Traces(provider), tracer)))
    }

    /// Sends what is left.
    pub async fn close(self) {
        ACTIVE.store(false, Ordering::Relaxed);
        let closed = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(LAST_PATIENCE)).await;
        if !matches!(closed, Ok(Ok(()))) {
            tracing::warn!("the last traces were not sent");
        }
    }
}

/// True while somebody is told of spans.
pub fn is_active() -> bool {
    ACTIVE.load(Ordering::Relaxed)
}

/// The trace that the present span belongs to, as a `traceparent`; `None` when nobody is told.
pub fn current() -> Option<String> {
    if !is_active() {
        return None;
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
    carrier.remove(TRACEPARENT)
}

/// The id of the trace that a span belongs to, for the logs; `None` when nobody is told.
pub fn id_of(span: &Span) -> Option<String> {
    let context = is_active().then(|| span.context())?;
    let context = context.span().span_context().clone();
    context.is_valid().then(|| context.trace_id().to_string())
}

/// Gives a span another name than that of its place in the code.
pub fn rename(span: &Span, name: String) {
    span.context().span().update_name(name);
}

/// Makes a span that was not entered yet go on with the trace of `parent`, a `traceparent`; without one it begins a trace.
pub fn follow(span: &Span, parent: Option<&str>) {
    if let Some(parent) = context_of(parent) {
        // It fails only where no collector is configured.
        let _ = span.set_parent(parent);
    }
}

/// A span of something that is over: from one stored moment to another.
pub fn past(
    name: &'static str,
    parent: Option<&str>,
    from: Micros,
    until: Micros,
    attributes: &[(&'static str, &str)],
) {
    let Some(parent) = context_of(parent) else { return };
    let builder = SpanBuilder::from_name(name)
        .with_start_time(system_time(from))
        .with_attributes(
            attributes
                .iter()
                .map(|(name, value)| KeyValue::new(*name, (*value).to_owned())),
        );
    let mut span = global::tracer(SCOPE).build_with_context(builder, &parent);
    span.end_with_timestamp(system_time(until));
}

/// A `traceparent` as the context of a parent that lives elsewhere.
fn context_of(parent: Option<&str>) -> Option<Context> {
    let parent = parent.filter(|_| is_active())?;
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), parent.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    context.span().span_context().is_valid().then_some(context)
}

fn system_time(at: Micros) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(at.0.max(0).unsigned_abs())
}

/// Sends batches with our HTTP client: the exporter has a thread of its own, without a runtime.
#[derive(Debug)]
struct Sender {
    http: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (http, request) = (self.http.clone(), reqwest::Request::try_from(request)?);
        let sent = self.runtime.spawn(async move {
            let answer = http.execute(request).await?;
            let status = answer.status();
            // What a collector says about a batch is a few bytes; the time-out is the end of more.
            let body = answer.bytes().await?;
            Ok::<_, reqwest::Error>((status, body))
        });
        let (status, body) = sent.await??;
        let mut response = Response::new(body);
        *response.status_mut() = status;
        Ok(response)
    }
}
