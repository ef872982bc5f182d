//! The values: each is explained, each has a type, and what documents name is there.

use std::collections::BTreeSet;

use super::*;

/// A value as `values.yaml` writes it: its path, and whether a comment is right above it.
struct Written {
    path: String,
    is_explained: bool,
}

/// Reads the lines of `values.yaml`: two blanks for each step in.
fn written(text: &str) -> Vec<Written> {
    let mut path: Vec<&str> = Vec::new();
    let mut values = Vec::new();
    let mut above = "";
    for line in text.lines() {
        let inner = line.trim_start();
        let depth = (line.len() - inner.len()) / 2;
        let name = inner.split_once(':').map_or("", |(name, _)| name);
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric());
        if is_name {
            path.truncate(depth);
            path.push(name);
            let is_comment = above.trim_start().starts_with('#');
            values.push(Written {
                path: path.join("."),
                is_explained: is_comment && above.len() - above.trim_start().len() == depth * 2,
            });
        }
        above = line;
    }
    values
}

fn schema() -> Value {
    serde_json::from_str(&read_file(&chart().join("values.schema.json"))).unwrap()
}

/// The paths of a schema's properties; `true` for those without properties of their own, which hold a value.
fn properties(root: &Value, schema: &Value, prefix: &str, found: &mut Vec<(String, bool)>) {
    let pointer = schema["$ref"].as_str().map(|name| name.trim_start_matches('#'));
    let schema = pointer.map_or(schema, |pointer| root.pointer(pointer).unwrap());
    let Some(inner) = schema["properties"].as_object() else {
        return;
    };
    assert_eq!(
        schema["additionalProperties"], false,
        "{prefix}: a typing mistake would pass"
    );
    for (name, inner) in inner {
        let path = format!("{prefix}{name}");
        let before = found.len();
        properties(root, inner, &format!("{path}."), found);
        // Requests and limits are explained together.
        let is_value = found.len() == before || path.ends_with("resources");
        found.truncate(if is_value { before } else { found.len() });
        found.push((path, is_value));
    }
}

#[test]
fn every_value_is_in_the_schema_and_explained() {
    let text = read_file(&chart().join("values.yaml"));
    let (read, _) = read_yaml(&[("values", &text)]);
    let values = &read["values"][0];
    let schema = schema();
    let mut known = Vec::new();
    properties(&schema, &schema, "", &mut known);
    known.retain(|(path, _)| path != "global");
    let written = written(&text);
    assert!(known.len() > 100 && written.len() > 100);
    for (path, is_value) in &known {
        let pointer = format!("/{}", path.replace('.', "/"));
        assert!(values.pointer(&pointer).is_some(), "{path} is in the schema only");
        let line = written.iter().find(|line| line.path == *path);
        let line = line.unwrap_or_else(|| panic!("{path} has no line of its own"));
        assert!(line.is_explained || !is_value, "{path} has no comment above");
    }
    // And the other way round; what is below a value is its content.
    let is_known = |path: &str| {
        let mut known = known.iter();
        known.any(|(other, is_value)| path == other || (*is_value && path.starts_with(&format!("{other}."))))
    };
    let unknown: Vec<&str> = written
        .iter()
        .map(|line| line.path.as_str())
        .filter(|path| !is_known(path))
        .collect();
    assert!(unknown.is_empty(), "not in the schema: {unknown:?}");
}

#[test]
fn values_are_read_as_they_are_written() {
    let text = "# A.\na: 1\n\nb:\n  # C.\n  c: {}\n  d:\n    e.f: 2\n# Wrong depth.\n  g: 3\n";
    let read: Vec<(String, bool)> = written(text)
        .into_iter()
        .map(|line| (line.path, line.is_explained))
        .collect();
    let expected = [("a", true), ("b", false), ("b.c", true), ("b.d", false), ("b.g", false)];
    assert_eq!(
        read,
        expected.map(|(path, is_explained)| (path.to_owned(), is_explained))
    );
}

#[test]
fn the_chart_is_for_this_version() {
    let text = read_file(&chart().join("Chart.yaml"));
    let (read, _) = read_yaml(&[("chart", &text)]);
    let chart = &read["chart"][0];
    // The tests have the version of the workspace, as Velro does.
    assert_eq!(
        chart["appVersion"],
        env!("CARGO_PKG_VERSION"),
        "Chart.yaml and Cargo.toml"
    );
}

/// `--set a.b=1,c=2` and `--set-file a.b=FILE` in the documents name values that exist.
#[test]
fn documents_name_values_that_exist() {
    let schema = schema();
    let mut known = Vec::new();
    properties(&schema, &schema, "", &mut known);
    let known: BTreeSet<String> = known.into_iter().map(|(path, _)| path).collect();
    let mut seen = 0;
    for document in ["docs/KUBERNETES.md", "helm/velro/templates/NOTES.txt"] {
        let text = read_file(&repository().join(document)).replace("\\\n", " ");
        let words: Vec<&str> = text.split_whitespace().collect();
        for pair in words
            .windows(2)
            .filter(|pair| pair[0].trim_start_matches('`').starts_with("--set"))
        {
            for setting in pair[1].trim_matches(|c| "`'\",.".contains(c)).split(',') {
                let path = setting.split('=').next().unwrap();
                let is_known = known.contains(path) || path.starts_with("secrets.env.");
                assert!(is_known, "{document}: there is no value {path}");
                seen += 1;
            }
        }
    }
    assert!(seen > 8, "only {seen} settings");
}
