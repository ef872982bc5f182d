//! Rules for every pod and every object, whatever the values are.

use super::*;
use manifest::{Pods, list, text, variable};

/// Every object of every case.
fn manifests() -> impl Iterator<Item = (&'static Case, &'static Manifest)> {
    let cases = cases().all.iter();
    cases.flat_map(|case| case.manifests.iter().map(move |manifest| (case, manifest)))
}

/// Every kind of pod of every case, with a title for messages.
fn pods() -> impl Iterator<Item = (String, Pods<'static>)> {
    manifests().filter_map(|(case, manifest)| {
        let title = format!("{}: {}", case.name, manifest.title());
        Some((title, manifest.pods()?))
    })
}

#[test]
fn every_object_is_valid_and_in_the_release_s_namespace() {
    let faults = &cases().faults;
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    for (case, manifest) in manifests() {
        let title = format!("{}: {}", case.name, manifest.title());
        assert!(
            !manifest.kind().is_empty() && !text(&manifest.0, "/apiVersion").is_empty(),
            "{title}"
        );
        assert_eq!(text(&manifest.0, "/metadata/namespace"), NAMESPACE, "{title}");
        // A Service's name is a label of DNS; the others are held to the same.
        assert!((1..=63).contains(&manifest.name().len()), "{title}");
    }
}

#[test]
fn every_pod_is_restricted() {
    let mut seen = 0;
    for (title, pods) in pods() {
        let security = &pods.spec["securityContext"];
        assert_eq!(security["runAsNonRoot"], true, "{title}");
        assert!(security["runAsUser"].as_u64().is_some_and(|user| user > 0), "{title}");
        assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{title}");
        assert_eq!(pods.spec["automountServiceAccountToken"], false, "{title}: a token");
        assert_eq!(pods.spec["enableServiceLinks"], false, "{title}");
        for shared in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pods.spec.get(shared).is_none(), "{title}: {shared}");
        }
        for volume in list(pods.spec, "/volumes") {
            assert!(volume.get("hostPath").is_none(), "{title}: {volume}");
        }
        for container in pods.containers() {
            let title = format!("{title}, container {}", text(container, "/name"));
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false, "{title}");
            assert_eq!(security["readOnlyRootFilesystem"], true, "{title}");
            assert_eq!(security["capabilities"]["drop"][0], "ALL", "{title}");
            assert!(security.get("privileged").is_none(), "{title}");
            let resources = &container["resources"];
            for amount in ["/requests/cpu", "/requests/memory", "/limits/memory"] {
                assert!(!text(resources, amount).is_empty(), "{title}: no {amount}");
            }
            let image = text(container, "/image");
            assert!(image.contains(':') && !image.ends_with(":latest"), "{title}: {image}");
            seen += 1;
        }
    }
    assert!(seen > 30, "only {seen} containers");
}

#[test]
fn what_serves_has_probes_on_ports_that_are_there() {
    let mut seen = 0;
    for (title, pods) in pods() {
        for container in list(pods.spec, "/containers").filter(|container| container.get("ports").is_some()) {
            let ports: Vec<&str> = list(container, "/ports").map(|port| text(port, "/name")).collect();
            for probe in ["livenessProbe", "readinessProbe"] {
                assert!(container.get(probe).is_some(), "{title}: no {probe}");
            }
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                let port = text(&container[probe], "/httpGet/port");
                assert!(port.is_empty() || ports.contains(&port), "{title}: {probe} asks {port}");
            }
            if pods.serve() {
                // The version of the schema decides about requests, never about restarts.
                assert_eq!(text(container, "/startupProbe/httpGet/path"), "/health", "{title}");
                assert_eq!(text(container, "/livenessProbe/httpGet/path"), "/health", "{title}");
                assert_eq!(
                    text(container, "/readinessProbe/httpGet/path"),
                    "/health/ready",
                    "{title}"
                );
                let is_worker = variable(container, "VELRO_ROLE") == Some("worker");
                assert_eq!(ports.contains(&"http"), !is_worker, "{title}: {ports:?}");
            }
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} containers with ports");
}

/// Every variable that the chart sets is one that Velro knows. What a case adds by itself is its own business.
#[test]
fn every_variable_is_documented() {
    let server = repository().join("server/src");
    let commands = std::fs::read_dir(server.join("cli")).unwrap();
    let known: String = [repository().join("README.md"), server.join("config/defaults.toml")]
        .into_iter()
        .chain(commands.map(|entry| entry.unwrap().path()))
        .map(|file| read_file(&file))
        .collect();
    let mut unknown = std::collections::BTreeSet::new();
    let mut seen = std::collections::BTreeSet::new();
    for (case, manifest) in manifests() {
        let containers = manifest.pods().into_iter().flat_map(Pods::containers);
        for container in containers.filter(|container| text(container, "/command/0") == "/usr/local/bin/velro") {
            let names: Vec<&str> = list(container, "/env").map(|entry| text(entry, "/name")).collect();
            for (at, name) in names.iter().enumerate() {
                assert!(!names[..at].contains(name), "{}: {name} twice", manifest.title());
                let is_whole = |text: &str| {
                    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                        .any(|word| word == *name)
                };
                if !is_whole(&known) && !case.values.contains(name) {
                    unknown.insert(*name);
                }
                seen.insert(*name);
            }
        }
    }
    assert!(seen.len() > 20, "{seen:?}");
    assert!(
        unknown.is_empty(),
        "neither README.md, defaults.toml nor a command has {unknown:?}"
    );
}

#[test]
fn the_kubelet_waits_longer_than_the_program() {
    let mut graces = std::collections::BTreeSet::new();
    for (title, pods) in pods().filter(|(_, pods)| pods.serve()) {
        let container = list(pods.spec, "/containers").next().unwrap();
        let seconds = |name| variable(container, name).unwrap().parse::<u64>().unwrap();
        let grace = seconds("VELRO_SHUTDOWN_GRACE_SECONDS");
        assert!(seconds("VELRO_SHUTDOWN_DELAY_SECONDS") < grace, "{title}");
        assert_eq!(pods.spec["terminationGracePeriodSeconds"], grace + 10, "{title}");
        graces.insert(grace);
    }
    assert!(graces.len() > 1, "no case changes it: {graces:?}");
}

#[test]
fn who_is_scaled_has_no_number_and_who_is_not_has_one() {
    for case in &cases().all {
        let targets: Vec<&str> = case
            .manifests
            .iter()
            .filter(|manifest| matches!(manifest.kind(), "HorizontalPodAutoscaler" | "ScaledObject"))
            .map(|manifest| text(&manifest.0, "/spec/scaleTargetRef/name"))
            .collect();
        for workload in case.manifests.iter().filter(|manifest| manifest.is_workload()) {
            let is_scaled = targets.contains(&workload.name());
            assert_eq!(
                workload.0.pointer("/spec/replicas").is_none(),
                is_scaled,
                "{}: {}: a number would undo what the autoscaler did at every upgrade",
                case.name,
                workload.title()
            );
        }
    }
}

#[test]
fn a_roll_out_never_leaves_fewer_pods_unless_the_volume_is_for_one_node() {
    let mut strategies = std::collections::BTreeSet::new();
    for (case, deployment) in manifests().filter(|(_, manifest)| manifest.kind() == "Deployment") {
        let strategy = &deployment.0["spec"]["strategy"];
        if case.values.contains("ReadWriteOnce") {
            assert_eq!(
                strategy["type"], "Recreate",
                "{}: two pods would wait for one volume",
                case.name
            );
        } else {
            assert_eq!(strategy["rollingUpdate"]["maxUnavailable"], 0, "{}", case.name);
        }
        strategies.insert(strategy.to_string());
    }
    assert_eq!(strategies.len(), 2, "{strategies:?}");
}

#[test]
fn one_sqlite_file_has_one_pod() {
    let embedded = &cases().named("default").manifests;
    let workloads: Vec<&Manifest> = embedded.iter().filter(|manifest| manifest.is_workload()).collect();
    let [only] = workloads[..] else {
        panic!("{} workloads", workloads.len());
    };
    assert_eq!(
        (only.kind(), &only.0["spec"]["replicas"]),
        ("StatefulSet", &Value::from(1))
    );
    for kind in ["PodDisruptionBudget", "Job", "HorizontalPodAutoscaler", "Secret"] {
        assert!(embedded.iter().all(|manifest| manifest.kind() != kind), "a {kind}");
    }
}

#[test]
fn data_outlives_the_release() {
    let mut seen = 0;
    for (case, manifest) in manifests() {
        let title = format!("{}: {}", case.name, manifest.title());
        if manifest.kind() == "PersistentVolumeClaim" {
            assert_eq!(manifest.annotation("helm.sh/resource-policy"), "keep", "{title}");
            seen += 1;
        }
        // Their claims can neither grow nor be adopted by the next release.
        assert!(
            manifest.0.pointer("/spec/volumeClaimTemplates").is_none(),
            "{title}: write a claim of its own"
        );
    }
    assert!(seen > 5, "only {seen} claims");
}

/// What is in a Secret is nowhere else.
#[test]
fn secrets_are_in_secrets_only() {
    let mut seen = 0;
    for case in &cases().all {
        let is_secret = |manifest: &&Manifest| manifest.kind() == "Secret";
        let kept = case.manifests.iter().filter(is_secret);
        let values = kept.flat_map(|secret| secret.0["stringData"].as_object().unwrap().values());
        for value in values.map(|value| value.as_str().unwrap()) {
            assert!(value.len() >= 8, "{}: a secret too short to look for", case.name);
            for other in case.manifests.iter().filter(|manifest| !is_secret(manifest)) {
                assert!(
                    !other.0.to_string().contains(value),
                    "{}: {} shows a secret",
                    case.name,
                    other.title()
                );
            }
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} secrets");
}
