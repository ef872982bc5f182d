//! What a running server says of its providers' breakers, read from its `/metrics`.

use std::collections::BTreeMap;
use std::time::Duration;

/// The whole answer must be there by then.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The breaker of every provider (`closed`, `half_open` or `open`) as the server at `base_url` has it; `None` when it does
/// not answer.
pub async fn ask(base_url: &str) -> Option<BTreeMap<String, String>> {
    // A proxy of the environment is for the world outside.
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().ok()?;
    let answer = client.get(format!("{base_url}/metrics")).send().await.ok()?;
    let answer = answer.error_for_status().ok()?;
    Some(read(&answer.text().await.ok()?))
}

fn read(metrics: &str) -> BTreeMap<String, String> {
    let levels = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix("velro_provider_breaker{provider=\"")?;
        let (name, level) = rest.split_once("\"} ")?;
        let word = match level.trim() {
            "0" => "closed",
            "1" => "half_open",
            "2" => "open",
            _ => return None,
        };
        Some((name.to_owned(), word.to_owned()))
    });
    levels.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breakers_are_read_from_the_metrics() {
        let text = "# HELP velro_provider_breaker x\nvelro_provider_breaker{provider=\"fal\"} 2\nvelro_other 1\n\
                    velro_provider_breaker{provider=\"sandbox\"} 0\n";
        let found = read(text);
        assert_eq!(found.get("fal").map(String::as_str), Some("open"));
        assert_eq!(found.get("sandbox").map(String::as_str), Some("closed"));
        assert_eq!(found.len(), 2);
    }
}
