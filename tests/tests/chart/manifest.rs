//! One object of Kubernetes, and questions that several rules ask of it.

use std::collections::BTreeMap;

use serde_json::Value;

/// An object as helm prints it.
pub struct Manifest(pub Value);

/// Pods that an object makes.
#[derive(Clone, Copy)]
pub struct Pods<'a> {
    pub metadata: &'a Value,
    pub spec: &'a Value,
}

/// A text at a JSON pointer; empty when there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The elements of a list at a JSON pointer; none when there is no list.
pub fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// Names with texts.
pub fn labels(value: Option<&Value>) -> BTreeMap<&str, &str> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
        .collect()
}

/// Whether a selector's labels are all there. One that asks for nothing would match anything: it is never meant here.
pub fn selects(selector: Option<&Value>, labelled: Option<&Value>) -> bool {
    let (wanted, there) = (labels(selector), labels(labelled));
    assert!(!wanted.is_empty(), "a selector without labels");
    wanted.iter().all(|(name, value)| there.get(name) == Some(value))
}

impl Manifest {
    pub fn kind(&self) -> &str {
        text(&self.0, "/kind")
    }

    pub fn name(&self) -> &str {
        text(&self.0, "/metadata/name")
    }

    /// For messages.
    pub fn title(&self) -> String {
        format!("{}/{}", self.kind(), self.name())
    }

    pub fn annotation(&self, name: &str) -> &str {
        let all = &self.0["metadata"]["annotations"];
        all[name].as_str().unwrap_or_default()
    }

    pub fn is_hook(&self) -> bool {
        !self.annotation("helm.sh/hook").is_empty()
    }

    /// The pods that it makes, or is.
    pub fn pods(&self) -> Option<Pods<'_>> {
        match self.kind() {
            "Pod" => Some(Pods {
                metadata: &self.0["metadata"],
                spec: &self.0["spec"],
            }),
            "Deployment" | "StatefulSet" | "Job" => {
                let template = &self.0["spec"]["template"];
                Some(Pods {
                    metadata: &template["metadata"],
                    spec: &template["spec"],
                })
            }
            _ => None,
        }
    }

    /// True for Deployments and StatefulSets: what goes on running.
    pub fn is_workload(&self) -> bool {
        matches!(self.kind(), "Deployment" | "StatefulSet")
    }
}

impl<'a> Pods<'a> {
    pub fn labels(self) -> Option<&'a Value> {
        self.metadata.get("labels")
    }

    /// True for pods of Velro's own processes.
    pub fn serve(self) -> bool {
        labels(self.labels()).contains_key("velro/serves")
    }

    /// Init containers, then containers.
    pub fn containers(self) -> impl Iterator<Item = &'a Value> {
        list(self.spec, "/initContainers").chain(list(self.spec, "/containers"))
    }
}

/// The value of an environment variable that a container is given as it is.
pub fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    list(container, "/env")
        .find(|entry| text(entry, "/name") == name)
        .and_then(|entry| entry["value"].as_str())
}
