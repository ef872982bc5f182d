//! `velro smoke`: makes a picture at a running server, as a user would.

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(30);

/// Between two looks at the status.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The longest picture that is fetched, in bytes.
const MOST_BYTES: usize = 64 << 20;

/// `velro smoke`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(after_help = "\
Examples:
  velro smoke
  velro smoke --url https://api.example.com
  VELRO_SMOKE_TOKEN=velro_... velro smoke --url https://api.example.com    where strangers cannot register

Exit codes: 0 when the picture arrived and was charged once, 1 otherwise.")]
pub struct SmokeArgs {
    /// Where the server is
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    pub url: String,
    /// Which model draws: one that costs nothing at its provider
    #[arg(long, default_value = "sandbox/image")]
    pub model: String,
    /// How long the generation may take, in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout_seconds: u64,
    /// An access token or API key to use instead of registering somebody new
    #[arg(long, env = "VELRO_SMOKE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

/// Who asks.
struct Caller {
    client: Client,
    base: String,
    token: Option<String>,
}

/// Says on `out` what it did. An error says at which step it went wrong.
pub async fn run(args: &SmokeArgs, out: &mut impl Write) -> Result<bool> {
    let mut caller = Caller {
        client: Client::builder().timeout(ANSWER).build()?,
        base: args.url.trim_end_matches('/').to_owned(),
        token: args.token.clone().filter(|token| !token.trim().is_empty()),
    };
    caller
        .json(Method::GET, "/health/ready", None)
        .await
        .context("not ready")?;
    writeln!(out, "ok  {} is ready", caller.base)?;
    let stranger = match caller.token {
        Some(_) => None,
        None => Some(
            caller
                .register()
                .await
                .context("nobody could register; with accounts elsewhere set VELRO_SMOKE_TOKEN")?,
        ),
    };
    if let Some((email, _)) = &stranger {
        writeln!(out, "ok  registered {email}")?;
    }
    let drawn = draw(&caller, args, out).await;
    // Whatever happened, nothing is left behind.
    if let Some((email, password)) = stranger {
        let body = json!({"confirm": email, "password": password});
        caller
            .json(Method::DELETE, "/api/v1/user/account", Some(body))
            .await
            .context("the account is still there")?;
        writeln!(out, "ok  deleted {email}")?;
    }
    drawn.map(|()| true)
}

async fn draw(caller: &Caller, args: &SmokeArgs, out: &mut impl Write) -> Result<()> {
    let before = caller.balance().await?;
    let body = json!({"model_id": args.model, "prompt": "a lighthouse in the fog, as a test", "parameters": {}});
    let key = format!("smoke-{}", Uuid::now_v7());
    let id = caller.submit(&body, &key).await.context("not submitted")?;
    let again = caller
        .submit(&body, &key)
        .await
        .context("the submit could not be repeated")?;
    ensure!(id == again, "the same idempotency key bought twice: {id} and {again}");
    writeln!(out, "ok  submitted {id}, twice with one key")?;

    let began = Instant::now();
    let patience = Duration::from_secs(args.timeout_seconds);
    let status = loop {
        let status = caller
            .json(Method::GET, &format!("/api/v1/generations/async/{id}/status"), None)
            .await?;
        match status["status"].as_str() {
            Some("completed") => break status,
            Some("queued" | "processing") if began.elapsed() < patience => sleep(LOOK_EVERY).await,
            Some(other @ ("queued" | "processing")) => bail!("still {other} after {patience:?}"),
            other => bail!("{}: {}", other.unwrap_or("no status"), status["error"]),
        }
    };
    writeln!(out, "ok  completed after {:.1} s", began.elapsed().as_secs_f64())?;

    let url = status["output_urls"][0].as_str().context("it has no file")?;
    let bytes = caller.fetch(url).await.context("the file cannot be fetched")?;
    let kind = infer::get(&bytes).map_or("unknown", |kind| kind.mime_type());
    ensure!(
        kind.starts_with("image/") || kind.starts_with("video/"),
        "what was fetched is no picture: {kind}"
    );
    writeln!(out, "ok  fetched {} bytes of {kind}", bytes.len())?;

    let charged = status["metadata"]["credits_used"]
        .as_i64()
        .context("it does not say what it cost")?;
    let after = caller.balance().await?;
    // Others may spend from the account of a given token meanwhile; a new one is ours alone.
    if args.token.is_none() {
        ensure!(
            before - after == charged,
            "{charged} credits were charged, but {} are gone",
            before - after
        );
    }
    writeln!(out, "ok  charged {charged} credits, once")?;
    Ok(())
}

impl Caller {
    fn request(&self, method: Method, url: &str) -> RequestBuilder {
        let request = self.client.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Asks for JSON; anything but success is an error with what the server says.
    async fn json(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let mut request = self.request(method, &format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request, path).await
    }

    /// Somebody new; e-mail and password.
    async fn register(&mut self) -> Result<(String, String)> {
        let email = format!("smoke-{}@example.com", Uuid::now_v7());
        let password = Uuid::new_v4().to_string();
        let body = json!({"email": email, "password": password, "full_name": "Smoke test"});
        let answer = self.json(Method::POST, "/api/v1/auth/register", Some(body)).await?;
        let token = answer["access_token"].as_str().context("no access token")?;
        self.token = Some(token.to_owned());
        Ok((email, password))
    }

    async fn submit(&self, body: &Value, key: &str) -> Result<String> {
        let path = "/api/v1/generations/async/submit";
        let request = self.request(Method::POST, &format!("{}{path}", self.base));
        let answer = answer(request.header("idempotency-key", key).json(body), path).await?;
        Ok(answer["generation_id"].as_str().context("no generation_id")?.to_owned())
    }

    async fn balance(&self) -> Result<i64> {
        let answer = self.json(Method::GET, "/api/v1/credits/balance", None).await?;
        answer["balance"].as_i64().context("no balance")
    }

    /// A file. Its URL is its permission: the token is not for whoever keeps it. It begins with PUBLIC_URL, which may not lead
    /// here from where we are; the way to the server is known.
    async fn fetch(&self, url: &str) -> Result<Vec<u8>> {
        let url = match url.split_once("/outputs/") {
            Some((_, file)) => format!("{}/outputs/{file}", self.base),
            None => url.to_owned(),
        };
        let mut answer = self.client.get(url).send().await?.error_for_status()?;
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            ensure!(
                bytes.len() + chunk.len() <= MOST_BYTES,
                "it is longer than {MOST_BYTES} bytes"
            );
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

async fn answer(request: RequestBuilder, path: &str) -> Result<Value> {
    let answer = request.send().await.with_context(|| format!("no answer from {path}"))?;
    let status = answer.status();
    let text = answer.text().await?;
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    if !status.is_success() {
        let detail = value["detail"].as_str().unwrap_or("no explanation");
        bail!("{path} answers {status}: {detail}");
    }
    Ok(value)
}
