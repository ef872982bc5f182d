//! Reads what there is to compare: the rule file, its tests, the dashboard, the runbooks, and the definition of the metrics.
//!
//! Read as text: each has one plain form, and what has another one is missed and fails the test that counts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::sources::rust_below;

/// The rule file, below the root.
pub const RULES: &str = "helm/velro/files/alerts.yaml";

/// The dashboard, below the root.
pub const DASHBOARD: &str = "helm/velro/files/dashboard.json";

/// The runbooks, below the root.
pub const RUNBOOKS: &str = "docs/runbooks.md";

/// The tests of the rules, below the root.
pub const RULE_TESTS: [&str; 2] = [
    "tests/tests/monitoring/alerts_test.yaml",
    "tests/tests/monitoring/alerts_days_test.yaml",
];

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// A file of the repository.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rest of every line of a file that begins, after blanks, with `head`.
pub fn lines_after(path: &str, head: &str) -> Vec<String> {
    let text = read(path);
    let rests = text.lines().filter_map(|line| line.trim_start().strip_prefix(head));
    rests.map(|rest| rest.trim().to_owned()).collect()
}

/// A question that is asked of Prometheus, and where it stands.
#[derive(Debug)]
pub struct Question {
    /// For messages.
    pub place: String,
    /// PromQL, or of a variable `label_values(...)`.
    pub expression: String,
}

/// Every expression of the rule file.
pub fn rule_questions() -> Vec<Question> {
    let text = read(RULES);
    let rules = text
        .split("      - ")
        .filter(|rule| rule.starts_with("alert: ") || rule.starts_with("record: "));
    let questions: Vec<Question> = rules
        .map(|rule| {
            let name = rule.lines().next().unwrap_or_default().to_owned();
            let (_, rest) = rule
                .split_once("expr: ")
                .unwrap_or_else(|| panic!("{name} has no expression"));
            // One line, or a block that is indented by ten.
            let block = |rest: &str| {
                let lines = rest.lines().skip(1).take_while(|line| line.starts_with("          "));
                lines.map(str::trim).collect::<Vec<_>>().join(" ")
            };
            let expression = match rest.starts_with('|') {
                true => block(rest),
                false => rest.lines().next().unwrap_or_default().to_owned(),
            };
            Question {
                place: name,
                expression,
            }
        })
        .collect();
    assert!(
        questions.len() > 30,
        "the rule file has another form now: {questions:?}"
    );
    questions
}

/// What Grafana puts into queries, as an operator who has chosen nothing sees it.
const GRAFANA: [(&str, &str); 5] = [
    ("$__rate_interval", "1m"),
    ("$__range", "6h"),
    ("$namespace", ".*"),
    ("$instance", ".*"),
    ("$provider", ".*"),
];

/// Every panel of the dashboard with queries.
pub fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    panels.iter().filter(|panel| panel["type"] != "row").cloned().collect()
}

/// Every query of the dashboard: of panels, variables and annotations.
pub fn dashboard_questions() -> Vec<Question> {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let of = |place: &Value, expression: &Value| Question {
        place: format!("panel `{}`", place.as_str().unwrap()),
        expression: expression.as_str().unwrap().to_owned(),
    };
    let mut questions = Vec::new();
    for panel in panels() {
        let targets = panel["targets"].as_array().unwrap();
        questions.extend(targets.iter().map(|target| of(&panel["title"], &target["expr"])));
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        questions.push(of(&annotation["name"], &annotation["expr"]));
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if variable["type"] == "query" {
            questions.push(of(&variable["name"], &variable["query"]["query"]));
        }
    }
    for question in &mut questions {
        for (variable, value) in GRAFANA {
            question.expression = question.expression.replace(variable, value);
        }
        assert!(!question.expression.contains('$'), "an unknown variable: {question:?}");
    }
    questions
}

/// Every metric that the server defines, with its labels.
pub fn definitions() -> BTreeMap<String, BTreeSet<String>> {
    let sources = rust_below(&root().join("server/src/telemetry")).unwrap();
    // `field: Kind = "velro_name" ["label", "label"] BUCKETS;`
    let mut found = BTreeMap::new();
    let mut before = "";
    for rest in sources.split(" = \"velro_") {
        let kind = before.rsplit(' ').next().unwrap_or_default();
        if let (true, Some((name, rest))) = (
            kind.ends_with("Vec") || kind.ends_with("Gauge") || kind.ends_with("Counter"),
            rest.split_once('"'),
        ) {
            let labels = rest
                .trim_start()
                .strip_prefix('[')
                .and_then(|rest| rest.split_once(']'));
            let labels = labels.map_or("", |(labels, _)| labels);
            let labels: BTreeSet<String> = labels.split('"').skip(1).step_by(2).map(str::to_owned).collect();
            for (suffix, more) in suffixes(kind) {
                let labels = labels.iter().cloned().chain(more.iter().map(|&label| label.to_owned()));
                found.insert(format!("velro_{name}{suffix}"), labels.collect());
            }
        }
        before = rest;
    }
    assert!(
        found.len() > 50,
        "the metrics are defined in another form now: {found:?}"
    );
    found
}

/// The series of a kind: what is appended to the name, with the labels that come with it.
fn suffixes(kind: &str) -> &'static [(&'static str, &'static [&'static str])] {
    match kind.starts_with("Histogram") {
        true => &[("_bucket", &["le"]), ("_sum", &[]), ("_count", &[])],
        false => &[("", &[])],
    }
}
