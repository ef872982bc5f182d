//! One person at one server: the calls a frontend makes, and the raw ones tests need.
//!
//! A server that does not answer fails the test; where a test expects that, it uses [`Client::try_send`].

use std::time::Duration;

use anyhow::{Context as _, Result};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::race::eventually;
use super::{Reply, SOON, Stream};

/// Everybody's password in the tests.
pub const PASSWORD: &str = "correct horse battery";

/// Where submits go.
pub const SUBMIT: &str = "/api/v1/generations/async/submit";

/// A connection pool of its own: a pool must not outlive the runtime of its test.
pub(super) fn http() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(60))
        .tls_certs_only([])
        .build()
        .expect("a plain HTTP client can always be built")
}

/// One person at one server.
#[derive(Debug, Clone)]
pub struct Client {
    /// The server.
    pub base_url: String,
    /// Who this is; empty when anonymous.
    pub email: String,
    /// The user's id; empty when anonymous.
    pub user_id: String,
    /// The access token, if there is one.
    pub token: Option<String>,
    /// The refresh token of the newest session; empty when anonymous.
    pub refresh_token: String,
    http: reqwest::Client,
}

impl Client {
    /// Nobody.
    #[must_use]
    pub fn anonymous(base_url: &str) -> Self {
        Self {
            base_url: base_url.into(),
            email: String::new(),
            user_id: String::new(),
            token: None,
            refresh_token: String::new(),
            http: http(),
        }
    }

    /// Registers somebody.
    pub async fn register(base_url: &str, email: &str, password: &str) -> Self {
        let mut client = Self::anonymous(base_url);
        email.clone_into(&mut client.email);
        let body = json!({"email": email, "password": password, "full_name": "Test Person"});
        let session = client.post("/api/v1/auth/register", &body).await.ok();
        client.adopt(&session);
        client
    }

    /// A new session for the same person.
    pub async fn login(&mut self, password: &str) {
        let body = json!({"email": self.email, "password": password});
        let session = self.post("/api/v1/auth/login", &body).await.ok();
        self.adopt(&session);
    }

    /// Takes over the tokens of a session answer.
    pub fn adopt(&mut self, session: &Value) {
        let text = |value: &Value| match value.as_str() {
            Some(text) if !text.is_empty() => text.to_owned(),
            _ => panic!("this is no session: {session}"),
        };
        self.token = Some(text(&session["access_token"]));
        self.refresh_token = text(&session["refresh_token"]);
        self.user_id = text(&session["user"]["id"]);
    }

    /// The same person with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: Some(token.into()),
            ..self.clone()
        }
    }

    /// The same person without a token.
    #[must_use]
    pub fn without_token(&self) -> Self {
        Self {
            token: None,
            ..self.clone()
        }
    }

    /// The access token.
    #[must_use]
    pub fn token(&self) -> &str {
        self.token.as_deref().expect("a person who is signed in")
    }

    /// A request with the token; `path` starts with a slash, or is a whole URL.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = match path.starts_with('/') {
            true => format!("{}{path}", self.base_url),
            false => path.to_owned(),
        };
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request and reads the answer whole.
    pub async fn send(&self, request: RequestBuilder) -> Reply {
        self.try_send(request).await.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// The same, where the server may be dead.
    ///
    /// # Errors
    /// If there is no whole answer.
    pub async fn try_send(&self, request: RequestBuilder) -> Result<Reply> {
        let request = request.build()?;
        let name = format!("{} {}", request.method(), request.url());
        let response = self.http.execute(request).await.with_context(|| name.clone())?;
        Ok(Reply::read(name, response).await?)
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Reply {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// POST with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// POST without a body.
    pub async fn post_empty(&self, path: &str) -> Reply {
        self.send(self.request(Method::POST, path)).await
    }

    /// PUT with a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> Reply {
        self.send(self.request(Method::PUT, path).json(body)).await
    }

    /// A submit that has not been sent.
    pub fn submit_request(&self, model_id: &str, prompt: &str, parameters: Value) -> RequestBuilder {
        let body = json!({"model_id": model_id, "prompt": prompt, "parameters": parameters});
        self.request(Method::POST, SUBMIT).json(&body)
    }

    /// Submits; the answer as it is.
    pub async fn try_submit(&self, model_id: &str, prompt: &str, parameters: Value) -> Reply {
        self.send(self.submit_request(model_id, prompt, parameters)).await
    }

    /// Submits a body with an idempotency key.
    pub async fn submit_with_key(&self, body: &Value, key: &str) -> Reply {
        let request = self.request(Method::POST, SUBMIT).json(body);
        self.send(request.header("Idempotency-Key", key)).await
    }

    /// Submits and gives the generation's id.
    pub async fn submit(&self, model_id: &str, prompt: &str, parameters: Value) -> String {
        id_of(&self.try_submit(model_id, prompt, parameters).await.ok())
    }

    /// Submits a sandbox picture that is small and quick.
    pub async fn submit_quick(&self, prompt: &str) -> String {
        let parameters = json!({"image_size": "square", "latency_ms": 0});
        self.submit("sandbox/image", prompt, parameters).await
    }

    /// The status answer.
    pub async fn status(&self, id: &str) -> Value {
        self.get(&format!("/api/v1/generations/async/{id}/status")).await.ok()
    }

    /// Waits for a status and gives the answer; another end than the one wanted fails at once.
    pub async fn wait_for(&self, id: &str, wanted: &str) -> Value {
        let answer = self.wait(id, wanted, SOON).await;
        assert_eq!(answer["status"], wanted, "{answer}");
        answer
    }

    /// Waits for the end, whichever it is.
    pub async fn wait_until_terminal(&self, id: &str) -> Value {
        self.wait(id, "", SOON).await
    }

    /// Waits for the end with more patience than usual.
    pub async fn wait_long(&self, id: &str, patience: Duration) -> Value {
        self.wait(id, "", patience).await
    }

    async fn wait(&self, id: &str, wanted: &str, patience: Duration) -> Value {
        eventually(&format!("generation {id} {wanted}"), patience, || async {
            let answer = self.status(id).await;
            let status = answer["status"].as_str().unwrap_or_default();
            let over = matches!(status, "completed" | "failed" | "cancelled");
            (status == wanted || over).then_some(answer)
        })
        .await
    }

    /// Opens the event stream.
    pub async fn stream(&self, id: &str) -> Stream {
        self.open_stream(self.stream_request(id)).await
    }

    /// Opens the event stream after an event that was seen already.
    pub async fn stream_after(&self, id: &str, last_event_id: &str) -> Stream {
        let request = self.stream_request(id).header("Last-Event-ID", last_event_id);
        self.open_stream(request).await
    }

    /// A request for the event stream.
    pub fn stream_request(&self, id: &str) -> RequestBuilder {
        self.request(Method::GET, &format!("/api/v1/generations/async/{id}/stream"))
    }

    /// Opens an event stream with a request of one's own.
    pub async fn open_stream(&self, request: RequestBuilder) -> Stream {
        let response = request.send().await.expect("the server answers");
        let status = response.status();
        assert!(status.is_success(), "no stream: {status} {:?}", response.text().await);
        let stream = Stream::new(response);
        let kind = stream.header("content-type");
        assert!(kind.starts_with("text/event-stream"), "no stream: {kind}");
        stream
    }

    /// Cancels; the answer as it is.
    pub async fn cancel(&self, id: &str) -> Reply {
        self.delete(&format!("/api/v1/generations/async/{id}/cancel")).await
    }

    /// The balance people see.
    pub async fn balance(&self) -> i64 {
        let answer = self.get("/api/v1/credits/balance").await.ok();
        answer["balance"]
            .as_i64()
            .unwrap_or_else(|| panic!("no integer: {answer}"))
    }

    /// The newest hundred lines of the statement, newest first.
    pub async fn transactions(&self) -> Vec<Value> {
        let answer = self.get("/api/v1/credits/transactions?limit=100").await.ok();
        let lines = answer["transactions"].as_array();
        lines.unwrap_or_else(|| panic!("no list: {answer}")).clone()
    }

    /// The statement in short, oldest first: `bonus +1000`.
    pub async fn statement(&self) -> Vec<String> {
        let short = |line: &Value| {
            let kind = line["transaction_type"].as_str().unwrap_or("?");
            format!("{kind} {:+}", line["amount"].as_i64().unwrap_or_default())
        };
        self.transactions().await.iter().rev().map(short).collect()
    }

    /// The newest hundred generations, newest first.
    pub async fn generations(&self) -> Vec<Value> {
        let answer = self.get("/api/v1/generations?limit=100").await.ok();
        answer.as_array().unwrap_or_else(|| panic!("no list: {answer}")).clone()
    }
}

/// The `generation_id` of an answer.
#[must_use]
pub fn id_of(answer: &Value) -> String {
    let id = answer["generation_id"].as_str();
    id.unwrap_or_else(|| panic!("no generation_id: {answer}")).to_owned()
}

/// POSTs the head of a request that announces a body of `length` bytes, and none of the body: a server that has to
/// refuse the size can do so before the body arrives. (Sending it all would race with the server closing the door.)
pub async fn announce(client: &Client, path: &str, content_type: &str, length: u64) -> u16 {
    let address = client.base_url.strip_prefix("http://").expect("the server speaks HTTP");
    let mut socket = TcpStream::connect(address).await.expect("the server accepts");
    let authorization = match &client.token {
        Some(token) => format!("Authorization: Bearer {token}\r\n"),
        None => String::new(),
    };
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\n{authorization}Content-Type: {content_type}\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.expect("the head is sent");
    let mut answer = Vec::new();
    timeout(SOON, socket.read_to_end(&mut answer))
        .await
        .expect("an answer in time")
        .expect("an answer");
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    status.unwrap_or_else(|| panic!("no answer: {answer}"))
}
