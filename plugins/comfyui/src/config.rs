//! The `config` table of the provider entry: where ComfyUI is, and the workflows by the names of their models.

use serde::Deserialize;
use std::collections::BTreeMap;
use velro_plugin::{BaseUrl, Fault, FaultCode, Value, read_config};

use crate::template::Template;

/// What an operator may set; there is no secret among it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    base_url: String,
    workflows: BTreeMap<String, WorkflowTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkflowTable {
    graph: Value,
    #[serde(default)]
    outputs: Vec<String>,
    #[serde(default)]
    uploads: Vec<String>,
}

/// The configuration, checked.
#[derive(Debug)]
pub(crate) struct Config {
    /// Where ComfyUI is.
    pub(crate) base: BaseUrl,
    /// By the name of the model.
    pub(crate) workflows: BTreeMap<String, Workflow>,
}

/// A workflow in the API format, with placeholders.
#[derive(Debug)]
pub(crate) struct Workflow {
    pub(crate) graph: Template,
    /// The nodes whose files are the result; empty for all of them.
    pub(crate) outputs: Vec<String>,
    /// Inputs that are uploaded before, when they are `data:` URLs.
    pub(crate) uploads: Vec<String>,
}

impl Config {
    pub(crate) fn read(config: &[u8]) -> Result<Self, Fault> {
        let table: Table = read_config(config)?;
        let mut workflows = BTreeMap::new();
        for (name, workflow) in table.workflows {
            let read = Workflow::read(workflow).map_err(|(field, what)| {
                Fault::new(FaultCode::BadInput, format!("config.workflows.{name}.{field}: {what}"))
            })?;
            workflows.insert(name, read);
        }
        if workflows.is_empty() {
            return Err(Fault::new(FaultCode::BadInput, "config.workflows: names no workflow"));
        }
        Ok(Config {
            base: BaseUrl::parse("config.base_url", &table.base_url)?,
            workflows,
        })
    }

    /// The workflow of a model.
    pub(crate) fn workflow(&self, model: &str) -> Result<&Workflow, Fault> {
        self.workflows.get(model).ok_or_else(|| {
            let names: Vec<&str> = self.workflows.keys().map(String::as_str).collect();
            let what = format!(
                "there is no workflow `{model}`; config.workflows has: {}",
                names.join(", ")
            );
            Fault::new(FaultCode::BadInput, what)
        })
    }
}

impl Workflow {
    fn read(table: WorkflowTable) -> Result<Self, (&'static str, String)> {
        let graph = |what: String| ("graph", what);
        // As a table, or as the JSON text that ComfyUI exports.
        let nodes = match table.graph {
            Value::String(text) => {
                serde_json::from_str(&text).map_err(|e| graph(format!("is a text that is not JSON: {e}")))?
            }
            value => value,
        };
        let Value::Object(map) = &nodes else {
            return Err(graph("must be an object of nodes".into()));
        };
        if map.contains_key("nodes") && map.contains_key("links") {
            let what = "is a workflow as the editor saves it; export it in the API format (Workflow > Export (API))";
            return Err(graph(what.into()));
        }
        let odd = map.iter().find(|(_, node)| !node["class_type"].is_string());
        if let Some((id, _)) = odd {
            return Err(graph(format!(
                "node `{id}` has no `class_type`: export the workflow in the API format"
            )));
        }
        if map.is_empty() {
            return Err(graph("has no node".into()));
        }
        if let Some(id) = table.outputs.iter().find(|id| !map.contains_key(*id)) {
            return Err(("outputs", format!("there is no node `{id}`")));
        }
        let graph = Template::parse(nodes).map_err(graph)?;
        if let Some(name) = table.uploads.iter().find(|name| !graph.uses(name)) {
            return Err(("uploads", format!("the graph has no placeholder `{{{{{name}}}}}`")));
        }
        Ok(Workflow {
            graph,
            outputs: table.outputs,
            uploads: table.uploads,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fault(workflow: &str) -> String {
        let config = format!(r#"{{"base_url": "http://gpu:8188", "workflows": {{"w": {workflow}}}}}"#);
        Config::read(config.as_bytes()).unwrap_err().message
    }

    #[test]
    fn faults_name_the_workflow_and_what_is_wrong_with_it() {
        let node = r#"{"1": {"class_type": "SaveImage", "inputs": {}}}"#;
        for (workflow, what) in [
            ("{}".to_owned(), "config.workflows.w: missing field `graph`"),
            (
                format!(r#"{{"graph": {node}, "output": []}}"#),
                "config.workflows.w.output: unknown field",
            ),
            (
                r#"{"graph": "{"}"#.into(),
                "config.workflows.w.graph: is a text that is not JSON",
            ),
            (
                r#"{"graph": {"nodes": [], "links": []}}"#.into(),
                "config.workflows.w.graph: is a workflow as the editor",
            ),
            (
                r#"{"graph": {"1": {}}}"#.into(),
                "config.workflows.w.graph: node `1` has no `class_type`",
            ),
            (r#"{"graph": {}}"#.into(), "config.workflows.w.graph: has no node"),
            (
                format!(r#"{{"graph": {node}, "outputs": ["9"]}}"#),
                "config.workflows.w.outputs: there is no node `9`",
            ),
            (
                format!(r#"{{"graph": {node}, "uploads": ["image"]}}"#),
                "config.workflows.w.uploads: the graph has no",
            ),
            (
                r#"{"graph": {"1": {"class_type": "x", "inputs": {"a": "{{b"}}}}"#.into(),
                "config.workflows.w.graph: a placeholder is not closed",
            ),
        ] {
            let told = fault(&workflow);
            assert!(told.starts_with(what), "{told}");
        }
        let none = Config::read(br#"{"base_url": "http://gpu:8188", "workflows": {}}"#);
        assert_eq!(none.unwrap_err().message, "config.workflows: names no workflow");
        assert!(Config::read(b"{}").unwrap_err().message.contains("`base_url`"));
    }
}
