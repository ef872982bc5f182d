//! One person at one server: the calls a frontend makes, and the raw ones tests need.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::race::eventually;
use super::{Reply, SOON, Stream};

/// Everybody's password in the tests.
pub const PASSWORD: &str = "correct horse battery";

/// Where submits go.
const SUBMIT: &str = "/api/v1/generations/async/submit";

/// A connection pool of its own: a pool must not outlive the runtime of its test.
///
/// # Panics
/// Never in practice: nothing here can be wrong.
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
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn register(base_url: &str, email: &str, password: &str) -> Result<Self> {
        let mut client = Self::anonymous(base_url);
        email.clone_into(&mut client.email);
        let body = json!({"email": email, "password": password, "full_name": "Test Person"});
        let session = client.post("/api/v1/auth/register", &body).await?.ok();
        client.adopt(&session)?;
        Ok(client)
    }

    /// A new session for the same person.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn login(&mut self, password: &str) -> Result<()> {
        let body = json!({"email": self.email, "password": password});
        let session = self.post("/api/v1/auth/login", &body).await?.ok();
        self.adopt(&session)
    }

    /// Takes over the tokens of a session answer.
    ///
    /// # Errors
    /// If it is none.
    pub fn adopt(&mut self, session: &Value) -> Result<()> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        self.token = Some(text(&session["access_token"]).context("no access_token")?);
        self.refresh_token = text(&session["refresh_token"]).context("no refresh_token")?;
        self.user_id = text(&session["user"]["id"]).context("no user.id")?;
        Ok(())
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
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn send(&self, request: RequestBuilder) -> Result<Reply> {
        let request = request.build()?;
        let name = format!("{} {}", request.method(), request.url());
        let response = self.http.execute(request).await.with_context(|| name.clone())?;
        Ok(Reply::read(name, response).await?)
    }

    /// GET.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn get(&self, path: &str) -> Result<Reply> {
        self.send(self.request(Method::GET, path)).await
    }

    /// DELETE.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn delete(&self, path: &str) -> Result<Reply> {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// POST with a JSON body.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Reply> {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// POST without a body.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn post_empty(&self, path: &str) -> Result<Reply> {
        self.send(self.request(Method::POST, path)).await
    }

    /// PUT with a JSON body.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Reply> {
        self.send(self.request(Method::PUT, path).json(body)).await
    }

    /// Submits; the answer as it is.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn try_submit(&self, model_id: &str, prompt: &str, parameters: Value) -> Result<Reply> {
        let body = json!({"model_id": model_id, "prompt": prompt, "parameters": parameters});
        self.post(SUBMIT, &body).await
    }

    /// Submits a body with an idempotency key.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn submit_with_key(&self, body: &Value, key: &str) -> Result<Reply> {
        let request = self.request(Method::POST, SUBMIT).json(body);
        self.send(request.header("Idempotency-Key", key)).await
    }

    /// Submits and gives the generation's id.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn submit(&self, model_id: &str, prompt: &str, parameters: Value) -> Result<String> {
        let answer = self.try_submit(model_id, prompt, parameters).await?.ok();
        let id = answer["generation_id"].as_str();
        Ok(id.with_context(|| format!("no generation_id in {answer}"))?.to_owned())
    }

    /// The status answer.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn status(&self, id: &str) -> Result<Value> {
        let path = format!("/api/v1/generations/async/{id}/status");
        Ok(self.get(&path).await?.ok())
    }

    /// Waits for a status and gives the answer.
    ///
    /// # Errors
    /// If it does not come in time, or another terminal status comes instead.
    pub async fn wait_for(&self, id: &str, wanted: &str) -> Result<Value> {
        let answer = eventually(&format!("generation {id} {wanted}"), SOON, || async {
            let answer = self.status(id).await?;
            let status = answer["status"].as_str().unwrap_or_default();
            let over = matches!(status, "completed" | "failed" | "cancelled");
            Ok((status == wanted || over).then_some(answer))
        })
        .await?;
        ensure!(answer["status"] == wanted, "should be {wanted}: {answer}");
        Ok(answer)
    }

    /// Waits for the end, whichever it is.
    ///
    /// # Errors
    /// If it does not come in time.
    pub async fn wait_until_terminal(&self, id: &str) -> Result<Value> {
        eventually(&format!("the end of generation {id}"), SOON, || async {
            let answer = self.status(id).await?;
            let status = answer["status"].as_str().unwrap_or_default();
            Ok(matches!(status, "completed" | "failed" | "cancelled").then_some(answer))
        })
        .await
    }

    /// Opens the event stream.
    ///
    /// # Errors
    /// If the answer is not a stream.
    pub async fn stream(&self, id: &str) -> Result<Stream> {
        self.stream_after(id, None).await
    }

    /// Opens the event stream after an event that was seen already.
    ///
    /// # Errors
    /// If the answer is not a stream.
    pub async fn stream_after(&self, id: &str, last_event_id: Option<&str>) -> Result<Stream> {
        let mut request = self.request(Method::GET, &format!("/api/v1/generations/async/{id}/stream"));
        if let Some(seen) = last_event_id {
            request = request.header("Last-Event-ID", seen);
        }
        self.open_stream(request).await
    }

    /// Opens an event stream with a request of one's own.
    ///
    /// # Errors
    /// If the answer is not a stream.
    pub async fn open_stream(&self, request: RequestBuilder) -> Result<Stream> {
        let response = request.send().await?;
        let status = response.status();
        let stream = Stream::new(response);
        ensure!(
            status.is_success() && stream.header("content-type").starts_with("text/event-stream"),
            "no stream: {status} {}",
            stream.header("content-type")
        );
        Ok(stream)
    }

    /// Cancels; the answer as it is.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn cancel(&self, id: &str) -> Result<Reply> {
        self.delete(&format!("/api/v1/generations/async/{id}/cancel")).await
    }

    /// The balance people see.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn balance(&self) -> Result<i64> {
        let answer = self.get("/api/v1/credits/balance").await?.ok();
        answer["balance"].as_i64().context("the balance is an integer")
    }

    /// The newest hundred lines of the statement, newest first.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn transactions(&self) -> Result<Vec<Value>> {
        let answer = self.get("/api/v1/credits/transactions?limit=100").await?.ok();
        let lines = answer["transactions"].as_array();
        Ok(lines.context("transactions is an array")?.clone())
    }

    /// The statement in short, oldest first: `bonus +1000`.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn statement(&self) -> Result<Vec<String>> {
        let lines = self.transactions().await?;
        let short = |line: &Value| {
            let kind = line["transaction_type"].as_str().unwrap_or("?");
            format!("{kind} {:+}", line["amount"].as_i64().unwrap_or_default())
        };
        Ok(lines.iter().rev().map(short).collect())
    }
}
