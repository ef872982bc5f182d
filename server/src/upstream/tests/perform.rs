//! Which answer, which transport error, and what is sent.

use super::*;
use crate::upstream::{Seen, UpstreamObserver};
use std::io;
use std::sync::Mutex;
use tracing_subscriber::fmt::MakeWriter;
use velro_plugin::{Effect, HttpRequest, Method, Transport};

async fn perform(does: Does, request: impl Fn(&Server) -> HttpRequest) -> (Result<u16, Transport>, Server) {
    let server = Server::start(does).await;
    let provider = provider(server.address, None);
    let result = upstream(true).perform(&provider, &request(&server)).await;
    (result.map(|a| a.status), server)
}

fn submit(server: &Server) -> HttpRequest {
    HttpRequest::submit(server.url("/v1")).json_body("{\"n\":1}")
}

#[tokio::test]
async fn nothing_listens() {
    let address = nowhere().await;
    let provider = provider(address, None);
    let request = HttpRequest::submit(format!("http://{address}/"));
    assert_eq!(
        upstream(true).perform(&provider, &request).await.unwrap_err(),
        Transport::NotSent
    );
}

#[tokio::test]
async fn the_name_does_not_exist() {
    let provider = provider("nobody.invalid", None);
    let request = HttpRequest::submit("http://nobody.invalid/").timeout_ms(30_000);
    let upstream = Upstream::with(true, 1_000, Duration::from_secs(10)).unwrap();
    assert_eq!(
        upstream.perform(&provider, &request).await.unwrap_err(),
        Transport::NotSent
    );
}

#[tokio::test]
async fn tls_fails_before_the_request_is_written() {
    let garbage = Does::answer(200, "", b"not tls");
    for does in [garbage, Does::ReadAndClose, Does::Close, Does::Silence] {
        let server = Server::start(does.clone()).await;
        let provider = provider(server.address, None);
        let request = HttpRequest::submit(format!("https://{}/", server.address)).timeout_ms(10_000);
        let error = upstream(true).perform(&provider, &request).await.unwrap_err();
        assert_eq!(error, Transport::NotSent, "{does:?}");
        assert_eq!(server.connections(), 1);
    }
}

/// Once connected, the request may have arrived, and it is not repeated.
#[tokio::test]
async fn a_broken_connection_counts_as_sent() {
    let half = |text: &str| Does::Say(text.as_bytes().to_vec());
    for (does, want) in [
        (Does::Close, Transport::Reset),
        (Does::ReadAndClose, Transport::Reset),
        (half("HTTP/1.1 200 OK\r\ncontent-"), Transport::Reset),
        (
            half("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"),
            Transport::Reset,
        ),
        (
            half("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab"),
            Transport::Reset,
        ),
        (half("garbage\r\n\r\n"), Transport::Reset),
    ] {
        let (result, server) = perform(does.clone(), submit).await;
        assert_eq!(result, Err(want), "{does:?}");
        assert_eq!(server.connections(), 1, "{does:?}");
    }
}

#[tokio::test]
async fn time_runs_out() {
    let body = b"HTTP/1.1 200 OK\r\ncontent-length: 400\r\n\r\n"
        .iter()
        .chain([b'x'; 400].iter());
    for does in [Does::Silence, Does::Slowly(body.copied().collect())] {
        let (result, server) = perform(does.clone(), |s| submit(s).timeout_ms(300)).await;
        assert_eq!(result, Err(Transport::Timeout), "{does:?}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn bodies_are_bounded() {
    let big = vec![b'x'; 65 << 10];
    let (result, _) = perform(Does::answer(200, "", &big), submit).await;
    assert_eq!(result, Err(Transport::BodyTooLarge));
    let mut endless = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
    endless.extend_from_slice(&big);
    let (result, _) = perform(Does::Say(endless), submit).await;
    assert_eq!(result, Err(Transport::BodyTooLarge));
}

#[tokio::test]
async fn redirects_and_errors_are_answers() {
    for status in [200, 302, 307, 404, 500] {
        let (result, server) = perform(Does::answer(status, "location: /elsewhere\r\n", b"{}"), submit).await;
        assert_eq!((result, server.connections()), (Ok(status), 1));
    }
}

#[tokio::test]
async fn secrets_go_into_headers_and_query_only() {
    let server = Server::start(Does::answer(200, "X-One: a\r\nX-Two: \u{ff}\r\n", b"{}")).await;
    let request = HttpRequest::new(Method::Put, server.url("/p?a=1&key={{secret:KEY}}"), Effect::Write)
        .header("Authorization", "Key {{secret:KEY}}")
        .json_body("{\"prompt\":\"{{secret:KEY}}\"}");
    let answer = upstream(true)
        .perform(&provider(server.address, None), &request)
        .await
        .unwrap();
    let sent = server.requests().remove(0);
    assert!(
        sent.starts_with("PUT /p?a=1&key=id%3Avery%2Fsecret%20value%26x%3D1 HTTP/1.1"),
        "{sent}"
    );
    assert!(sent.contains(&format!("authorization: Key {SECRET}\r\n")), "{sent}");
    assert!(sent.ends_with("{\"prompt\":\"{{secret:KEY}}\"}"), "{sent}");
    let headers = answer.header_refs();
    let response = answer.response(&headers);
    assert_eq!((response.header("x-one"), response.ok()), (Some("a"), true));
}

#[tokio::test]
async fn what_is_refused_is_not_sent() {
    let server = Server::start(Does::answer(200, "", b"{}")).await;
    let here = server.address;
    let get = |url: String| HttpRequest::get(url);
    let refused = [
        get(format!("http://localhost:{}/", here.port())),
        get("http://127.0.0.1/".into()),
        get("https://evil.example/".into()),
        get(format!("http://user@{here}/")),
        get(format!("http://{here}\\@evil.example/")),
        get(format!("ftp://{here}/")),
        get("not a url".into()),
        get(format!("http://{here}/{{{{secret:KEY}}}}")),
        get(format!("http://{here}/?k={{{{secret:UNDECLARED}}}}")),
        get(format!("http://{here}/?k={{{{secret:NOPE}}}}")),
        get(format!("http://{here}/?k={{{{secret:KEY")),
        get(format!("http://{here}/{}", "x".repeat(9_000))),
        get(server.url("/")).header("host", "evil.example"),
        get(server.url("/")).header("content-length", "5"),
        get(server.url("/")).header("Transfer-Encoding", "chunked"),
        get(server.url("/")).header("x-a", "b\r\nx-c: d"),
        get(server.url("/")).header("x a", "b"),
    ];
    for request in refused {
        let result = upstream(true).perform(&provider(here, None), &request).await;
        assert_eq!(result.unwrap_err(), Transport::HostDenied, "{request:?}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn private_addresses_are_refused() {
    let server = Server::start(Does::answer(200, "", b"{}")).await;
    let here = server.address;
    let upstream = upstream(false);
    // An address in the URL, and plain http.
    for url in [
        format!("https://{here}/"),
        format!("http://{here}/"),
        "https://127.0.0.1/".into(),
    ] {
        let result = upstream.perform(&provider(here, None), &HttpRequest::get(url)).await;
        assert_eq!(result.unwrap_err(), Transport::HostDenied);
    }
    // A name that leads to one: seen when it is resolved, by the connection itself.
    let name = format!("localhost:{}", here.port());
    let request = HttpRequest::get(format!("https://{name}/"));
    assert_eq!(
        upstream.perform(&provider(&name, None), &request).await.unwrap_err(),
        Transport::NotSent
    );
    assert_eq!(server.connections(), 0);
}

#[derive(Default)]
struct Watch(Mutex<Vec<(String, &'static str, &'static str)>>);

impl UpstreamObserver for Watch {
    fn request(&self, seen: Seen<'_>) {
        self.0
            .lock()
            .unwrap()
            .push((seen.provider.to_owned(), seen.kind, seen.class));
    }
}

#[tokio::test]
async fn every_request_is_observed() {
    let watch = Arc::new(Watch::default());
    let server = Server::routes(vec![("/good", Does::answer(202, "", b"")), ("/", Does::ReadAndClose)]).await;
    let upstream = upstream(true).observed_by(watch.clone());
    let provider = provider(server.address, None);
    let _ = upstream
        .perform(&provider, &HttpRequest::submit(server.url("/good")))
        .await;
    let _ = upstream.perform(&provider, &HttpRequest::get(server.url("/bad"))).await;
    let _ = upstream
        .perform(&provider, &HttpRequest::get("https://evil.example/"))
        .await;
    let seen = watch.0.lock().unwrap().clone();
    let want = [("submit", "2xx"), ("read", "reset"), ("read", "denied")];
    assert_eq!(seen, want.map(|(kind, class)| ("test".to_owned(), kind, class)));
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

#[tokio::test]
async fn no_secret_is_logged() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE)
        .finish();
    // With only one subscriber about, a log line first met by another test's thread would be switched off for good.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = Server::start(Does::ReadAndClose).await;
    let closed = nowhere().await;
    for (host, url) in [
        (
            server.address,
            server.url("/secretless?key={{secret:KEY}}&mine=hunter2"),
        ),
        (
            closed,
            format!("http://{closed}/secretless?key={{{{secret:KEY}}}}&mine=hunter2"),
        ),
    ] {
        let request = HttpRequest::get(url).header("authorization", "Key {{secret:KEY}}");
        upstream(true)
            .perform(&provider(host, None), &request)
            .await
            .unwrap_err();
    }
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("/secretless"), "{text}");
    for hidden in ["very", "hunter2"] {
        assert!(!text.contains(hidden), "{text}");
    }
}
