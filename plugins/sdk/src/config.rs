//! The `config` table of a provider entry, read with faults that an operator can act on.

use serde::de::DeserializeOwned;

use crate::{Fault, FaultCode};

/// Reads the JSON text that `create` was given. A fault names the field: `config.base_url: invalid type ...`.
///
/// Give the type `#[serde(deny_unknown_fields)]`, so that a misspelt field is a fault too.
pub fn read_config<T: DeserializeOwned>(config: &[u8]) -> Result<T, Fault> {
    let mut text = serde_json::Deserializer::from_slice(config);
    serde_path_to_error::deserialize(&mut text).map_err(|e| {
        let field = match e.path().to_string() {
            root if root == "." => "config".to_owned(),
            path => format!("config.{path}"),
        };
        // Line and column are those of a text the operator never saw.
        let what = e.inner().to_string();
        let what = what.split(" at line ").next().unwrap_or_default().to_owned();
        Fault::new(FaultCode::BadInput, format!("{field}: {what}"))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        #[serde(default)]
        timeout_ms: u32,
    }

    #[test]
    fn faults_name_the_field() {
        let told = |text: &str| read_config::<Config>(text.as_bytes()).map_err(|f| f.message);
        assert_eq!(told(r#"{"timeout_ms": 5}"#), Ok(Config { timeout_ms: 5 }));
        assert_eq!(told("{}"), Ok(Config { timeout_ms: 0 }));
        let wrong = told(r#"{"timeout_ms": "5"}"#).unwrap_err();
        assert!(wrong.starts_with("config.timeout_ms: invalid type"), "{wrong}");
        let unknown = told(r#"{"timeout": 5}"#).unwrap_err();
        assert!(
            unknown.contains("unknown field `timeout`, expected `timeout_ms`"),
            "{unknown}"
        );
        assert!(!unknown.contains("line"), "{unknown}");
        assert!(told("5").is_err());
    }
}
