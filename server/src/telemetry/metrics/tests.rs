//! What a scrape says.

#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::clock::Micros;
use crate::ledger::Credits;
use crate::store::{LedgerCheck, SystemCounts};
use std::sync::Arc;
use std::time::Duration;
use velro_plugin::Quote;

fn bill(unit: &str, units_milli: u64) -> Quote {
    Quote {
        usd_micros: 250_000,
        unit: unit.into(),
        units_milli,
    }
}

#[test]
fn what_happened_can_be_scraped() {
    let metrics = Arc::new(Metrics::new().unwrap());
    metrics.request("GET", "api/v1/projects/{project_id}", 404, Duration::from_millis(3));
    metrics.submit("accepted");
    metrics.clock_offset(-1_500_000);
    metrics.provider_breakers([("gone", 1)]);
    metrics.provider_breakers([("fal", 2)]);
    metrics.provider_fault("acme");
    metrics.reroute("fal", "acme", "refused");
    let stream = metrics.stream_opened();
    metrics.registry("aaa", 0, 0, false);
    metrics.registry("bbb", 1, 2, true);
    metrics.billed("fal", &bill("images", 1500));
    let text = metrics.render().unwrap();
    for line in [
        r#"velro_http_requests_total{method="GET",route="api/v1/projects/{project_id}",status="4xx"} 1"#,
        r#"velro_submits_total{outcome="accepted"} 1"#,
        "velro_sse_connections 1",
        r#"velro_registry_info{revision="bbb"} 1"#,
        r#"velro_registry_reloads_total{outcome="refused"} 2"#,
        "velro_registry_edit_refused 1",
        "velro_clock_offset_seconds -1.5",
        r#"velro_provider_breaker{provider="fal"} 2"#,
        r#"velro_provider_faults_total{provider="acme"} 1"#,
        r#"velro_reroutes_total{from="fal",reason="refused",to="acme"} 1"#,
        r#"velro_provider_billed_units_total{provider="fal",unit="images"} 1.5"#,
        r#"velro_provider_billed_dollars_total{provider="fal"} 0.25"#,
        "# HELP velro_held_credits Credits in unsettled holds.",
    ] {
        assert!(text.contains(line), "{line} is missing from\n{text}");
    }
    assert!(!text.contains("aaa") && !text.contains("gone"));
    drop(stream);
    assert!(metrics.render().unwrap().contains("velro_sse_connections 0"));
}

#[test]
fn ages_are_seconds_of_the_oldest() {
    let metrics = Metrics::new().unwrap();
    let counts = SystemCounts {
        oldest_queued_at: Some(Micros(1_000_000)),
        held: Credits(7),
        ..SystemCounts::default()
    };
    metrics.system(&counts, Micros(4_500_000));
    let text = metrics.render().unwrap();
    assert!(text.contains("velro_queue_oldest_age_seconds 3"), "{text}");
    assert!(text.contains("velro_held_credits 7"), "{text}");
    assert!(text.contains(r#"velro_generations{status="queued"} 0"#), "{text}");
    assert!(
        !text.contains("velro_ledger_faults 0"),
        "before the first check nothing is known\n{text}"
    );
    let check = LedgerCheck {
        finished_at: Micros(4_000_000),
        took: Duration::from_millis(12),
        faults: 0,
        charged_without_output: 3,
    };
    let counts = SystemCounts {
        ledger_check: Some(check),
        ..counts
    };
    metrics.system(&counts, Micros(4_500_000));
    let text = metrics.render().unwrap();
    for line in [
        "velro_ledger_faults 0",
        "velro_ledger_checked_timestamp_seconds 4",
        "velro_ledger_check_duration_seconds 0.012",
        "velro_charged_without_output 3",
        "velro_database_up 1",
        "velro_gauges_refreshed_timestamp_seconds 4.5",
    ] {
        assert!(text.contains(line), "{line} is missing from\n{text}");
    }
    metrics.system_is_away();
    assert!(metrics.render().unwrap().contains("velro_database_up 0"));
}

#[test]
fn the_units_of_bills_are_few() {
    let metrics = Metrics::new().unwrap();
    for n in 0..100 {
        metrics.billed("acme", &bill(&format!("unit-{n}"), 1000));
    }
    metrics.billed("acme", &bill("unit-1", 1000));
    metrics.billed("acme", &bill("a unit with spaces", 1000));
    let text = metrics.render().unwrap();
    assert!(
        text.contains(r#"velro_provider_billed_units_total{provider="acme",unit="unit-1"} 2"#),
        "{text}"
    );
    assert!(
        text.contains(r#"velro_provider_billed_units_total{provider="acme",unit="other"} 81"#),
        "{text}"
    );
    let series = text
        .lines()
        .filter(|line| line.starts_with("velro_provider_billed_units_total{"));
    assert_eq!(series.count(), 21);
}
