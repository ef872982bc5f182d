//! The `config` table of the provider entry.

use serde::Deserialize;
use velro_plugin::{BaseUrl, Fault, read_config};

/// What an operator may set; there is no secret among it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default = "api")]
    base_url: String,
}

fn api() -> String {
    "https://api.replicate.com/v1".into()
}

/// The configuration, checked.
#[derive(Debug)]
pub(crate) struct Config {
    /// Where the API is.
    pub(crate) base: BaseUrl,
}

impl Config {
    pub(crate) fn read(config: &[u8]) -> Result<Self, Fault> {
        let table: Table = read_config(config)?;
        Ok(Config {
            base: BaseUrl::parse("config.base_url", &table.base_url)?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_the_base_url_can_be_set() {
        assert_eq!(Config::read(b"{}").unwrap().base.host(), "api.replicate.com");
        let fault = |text: &[u8]| Config::read(text).unwrap_err().message;
        assert!(fault(br#"{"url": "x"}"#).contains("`url`"));
        assert!(fault(br#"{"base_url": 7}"#).starts_with("config.base_url: "));
        assert!(fault(br#"{"base_url": "x"}"#).starts_with("`config.base_url` "));
    }
}
