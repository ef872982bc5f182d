//! A Prometheus server.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use url::Url;

use super::daemon::Daemon;
use super::programs;
use crate::ports::free_port;

/// Ports are taken between looking and binding; how often to try another one.
const PORT_TRIES: usize = 5;

/// A Prometheus with a configuration of the test's.
#[derive(Debug)]
pub struct Prometheus {
    daemon: Daemon,
    http: reqwest::Client,
    port: u16,
}

impl Prometheus {
    /// Starts an empty server with this configuration file; `rules` becomes `rules.yaml` beside it.
    ///
    /// # Errors
    /// If Prometheus is not installed, does not start, or does not take the configuration.
    pub async fn start(configuration: &str, rules: &Path) -> Result<Self> {
        let daemon = Daemon::new("prometheus", "TERM")?;
        let folder = daemon.home.path();
        std::fs::write(folder.join("prometheus.yaml"), configuration)?;
        std::fs::copy(rules, folder.join("rules.yaml")).with_context(|| format!("copy {}", rules.display()))?;
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build()?;
        let mut server = Self {
            daemon,
            http,
            port: free_port()?,
        };
        for _ in 1..PORT_TRIES {
            match server.launch().await {
                Ok(()) => return Ok(server),
                Err(_) if server.daemon.lost_its_port() => server.port = free_port()?,
                Err(error) => return Err(error),
            }
        }
        server.launch().await?;
        Ok(server)
    }

    async fn launch(&mut self) -> Result<()> {
        let mut command = self.daemon.home.server_command(&programs::find("prometheus")?);
        command.args([
            "--config.file=prometheus.yaml",
            "--storage.tsdb.path=data",
            "--log.level=warn",
        ]);
        command.arg(format!("--web.listen-address=127.0.0.1:{}", self.port));
        let (http, url) = (self.http.clone(), self.url("/-/ready")?);
        let probe = async || {
            let answer = http.get(url.clone()).send().await?;
            answer.error_for_status()?;
            Ok(())
        };
        self.daemon.start(command, probe).await
    }

    fn url(&self, path: &str) -> Result<Url> {
        Ok(Url::parse(&format!("http://127.0.0.1:{}{path}", self.port))?)
    }

    /// The `data` of an answer of its API; `path` begins with a slash.
    ///
    /// # Errors
    /// If it does not answer, or with an error.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.data(self.url(path)?).await
    }

    /// What a query finds at this moment: the vector's samples, or the one of a scalar.
    ///
    /// # Errors
    /// If it does not answer, or not to this query.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let mut url = self.url("/api/v1/query")?;
        url.query_pairs_mut().append_pair("query", expression);
        let data = self.data(url).await.with_context(|| expression.to_owned())?;
        match data["resultType"].as_str() {
            Some("vector") => Ok(data["result"].as_array().cloned().unwrap_or_default()),
            Some("scalar") => Ok(vec![data["result"].clone()]),
            other => bail!("{expression}: the result is {other:?}"),
        }
    }

    async fn data(&self, url: Url) -> Result<Value> {
        let mut answer: Value = self.http.get(url).send().await?.json().await?;
        ensure!(answer["status"] == "success", "Prometheus answered {answer}");
        Ok(answer["data"].take())
    }

    /// The end of its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}
