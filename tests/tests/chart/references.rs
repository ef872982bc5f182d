//! Whatever an object names is there: pods behind selectors, ports behind services, Secrets, ConfigMaps and claims behind
//! mounts, and all of it in time for hooks.

use std::collections::BTreeSet;

use super::*;
use manifest::{Pods, labels, list, selects, text};

/// Kind and name of what a pod needs to start.
fn needs(pods: Pods<'_>) -> BTreeSet<(&'static str, String)> {
    let mut needs = BTreeSet::new();
    let mut note = |kind, name: &str| {
        if !name.is_empty() {
            needs.insert((kind, name.to_owned()));
        }
    };
    for volume in list(pods.spec, "/volumes") {
        note("ConfigMap", text(volume, "/configMap/name"));
        note("Secret", text(volume, "/secret/secretName"));
        note(
            "PersistentVolumeClaim",
            text(volume, "/persistentVolumeClaim/claimName"),
        );
    }
    for container in pods.containers() {
        for source in list(container, "/envFrom") {
            note("Secret", text(source, "/secretRef/name"));
            note("ConfigMap", text(source, "/configMapRef/name"));
        }
        for entry in list(container, "/env") {
            note("Secret", text(entry, "/valueFrom/secretKeyRef/name"));
        }
    }
    note("ServiceAccount", text(pods.spec, "/serviceAccountName"));
    needs
}

fn weight(manifest: &Manifest) -> i32 {
    manifest.annotation("helm.sh/hook-weight").parse().unwrap_or_default()
}

#[test]
fn what_a_pod_needs_is_made_before_it_or_was_there() {
    let mut seen = 0;
    for case in &cases().all {
        for manifest in &case.manifests {
            let before = |other: &Manifest| match (text(&manifest.0, "/kind"), other.is_hook()) {
                // Hooks of an install run before the release's own objects.
                ("Job", is_hook) => is_hook && weight(other) < weight(manifest),
                (_, is_hook) => !is_hook,
            };
            for (kind, name) in manifest.pods().into_iter().flat_map(needs) {
                let made = case
                    .manifests
                    .iter()
                    .any(|other| other.kind() == kind && other.name() == name && before(other));
                // What the values name was there before; every namespace has the account `default`.
                let was_there = case.values.contains(&format!(": {name}"))
                    || (kind, name.as_str()) == ("ServiceAccount", "default");
                assert!(
                    made || was_there,
                    "{}: {} needs {kind}/{name}",
                    case.name,
                    manifest.title()
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 40, "only {seen} references");
}

#[test]
fn what_is_mounted_is_a_volume_and_is_used() {
    for case in &cases().all {
        for manifest in &case.manifests {
            let Some(pods) = manifest.pods() else { continue };
            let volumes: BTreeSet<&str> = list(pods.spec, "/volumes")
                .map(|volume| text(volume, "/name"))
                .collect();
            let mounted: BTreeSet<&str> = pods
                .containers()
                .flat_map(|container| list(container, "/volumeMounts").map(|mount| text(mount, "/name")))
                .collect();
            assert_eq!(mounted, volumes, "{}: {}", case.name, manifest.title());
        }
    }
}

/// A selector that two workloads share makes each of them delete the other's pods.
#[test]
fn a_workload_selects_its_own_pods_and_no_others() {
    for case in &cases().all {
        for workload in case.manifests.iter().filter(|manifest| manifest.is_workload()) {
            let selector = workload.0.pointer("/spec/selector/matchLabels");
            // These can never be changed; a version or a chart among them would make an upgrade impossible.
            let keys: Vec<&str> = labels(selector).into_keys().collect();
            let stable = ["component", "instance", "name"].map(|key| format!("app.kubernetes.io/{key}"));
            assert_eq!(keys, stable, "{}: {}", case.name, workload.title());
            let selected: Vec<String> = case
                .manifests
                .iter()
                .filter(|other| other.pods().is_some_and(|pods| selects(selector, pods.labels())))
                .map(Manifest::title)
                .collect();
            assert_eq!(selected, [workload.title()], "{}", case.name);
        }
    }
}

#[test]
fn services_lead_to_ports_of_pods() {
    let mut seen = 0;
    for case in &cases().all {
        for service in case.manifests.iter().filter(|manifest| manifest.kind() == "Service") {
            let selector = service.0.pointer("/spec/selector");
            let behind: Vec<Pods<'_>> = case
                .manifests
                .iter()
                .filter_map(Manifest::pods)
                .filter(|pods| selects(selector, pods.labels()))
                .collect();
            assert!(!behind.is_empty(), "{}: nobody behind {}", case.name, service.title());
            for port in list(&service.0, "/spec/ports") {
                let target = text(port, "/targetPort");
                for pods in &behind {
                    let mut ports = pods.containers().flat_map(|container| list(container, "/ports"));
                    assert!(
                        ports.any(|port| text(port, "/name") == target),
                        "{}: {} asks for {target}",
                        case.name,
                        service.title()
                    );
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 15, "only {seen} ports");
}

#[test]
fn what_points_at_others_finds_them() {
    for case in &cases().all {
        let there = |kind: &str, name: &str| {
            let mut all = case.manifests.iter();
            all.any(|manifest| manifest.kind() == kind && manifest.name() == name)
        };
        for manifest in &case.manifests {
            let title = format!("{}: {}", case.name, manifest.title());
            match manifest.kind() {
                "HorizontalPodAutoscaler" | "ScaledObject" => {
                    let target = text(&manifest.0, "/spec/scaleTargetRef/name");
                    assert!(there("Deployment", target), "{title}: {target}");
                }
                "StatefulSet" => {
                    let service = text(&manifest.0, "/spec/serviceName");
                    assert!(there("Service", service), "{title}: {service}");
                }
                "PodDisruptionBudget" | "NetworkPolicy" => {
                    let pointer = ["/spec/selector/matchLabels", "/spec/podSelector/matchLabels"];
                    let selector = pointer.iter().find_map(|pointer| manifest.0.pointer(pointer));
                    let mut pods = case.manifests.iter().filter_map(Manifest::pods);
                    assert!(pods.any(|pods| selects(selector, pods.labels())), "{title}");
                }
                "Ingress" => {
                    for rule in list(&manifest.0, "/spec/rules") {
                        let backend = rule.pointer("/http/paths/0/backend/service").unwrap();
                        let service = case
                            .manifests
                            .iter()
                            .find(|other| other.kind() == "Service" && other.name() == text(backend, "/name"));
                        let mut ports = list(&service.unwrap().0, "/spec/ports");
                        assert!(
                            ports.any(|port| text(port, "/name") == text(backend, "/port/name")),
                            "{title}"
                        );
                    }
                }
                "ServiceMonitor" => {
                    let selector = manifest.0.pointer("/spec/selector/matchLabels");
                    let services: Vec<&Manifest> = case
                        .manifests
                        .iter()
                        .filter(|other| other.kind() == "Service")
                        .filter(|service| selects(selector, service.0.pointer("/metadata/labels")))
                        .collect();
                    assert_eq!(services.len(), 1, "{title}");
                    let port = text(&manifest.0, "/spec/endpoints/0/port");
                    let mut ports = list(&services[0].0, "/spec/ports");
                    assert!(ports.any(|other| text(other, "/name") == port), "{title}: {port}");
                    assert_eq!(text(&manifest.0, "/spec/namespaceSelector/matchNames/0"), NAMESPACE);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn alerts_and_dashboard_are_the_files() {
    let production = &cases().named("production").manifests;
    let of = |kind: &str, suffix: &str| {
        let mut all = production.iter();
        let found = all.find(|manifest| manifest.kind() == kind && manifest.name().ends_with(suffix));
        found.unwrap_or_else(|| panic!("no {kind} {suffix}"))
    };
    let alerts = read_file(&chart().join("files/alerts.yaml"));
    // production.yaml says where the runbooks can be read.
    assert!(alerts.contains("runbook_url: docs/runbooks.md#"));
    let alerts = alerts.replace("docs/runbooks.md#", "https://velro.example.com/docs/runbooks.md#");
    let (read, _) = read_yaml(&[("alerts", &alerts)]);
    let rule = of("PrometheusRule", "");
    assert_eq!(rule.0["spec"], read["alerts"][0]);
    assert!(rule.0["spec"]["groups"][0]["rules"][0].is_object());
    let dashboard: Value = serde_json::from_str(&read_file(&chart().join("files/dashboard.json"))).unwrap();
    let config = of("ConfigMap", "-dashboard");
    let shown: Value = serde_json::from_str(text(&config.0, "/data/velro.json")).unwrap();
    assert_eq!(shown, dashboard);
    for custom in [&rule.0, &of("ServiceMonitor", "").0] {
        assert_eq!(
            custom["metadata"]["labels"]["release"], "prometheus",
            "how an operator selects it"
        );
    }
}

/// A total that every process reports must not be summed over processes.
#[test]
fn workers_are_scaled_by_the_queue() {
    let find = |case: &str, kind: &str| {
        let mut all = cases().named(case).manifests.iter();
        all.find(|manifest| manifest.kind() == kind && manifest.name().ends_with("-worker"))
            .unwrap()
    };
    let by_metric = &find("production", "HorizontalPodAutoscaler").0["spec"]["metrics"][0];
    assert_eq!(by_metric["type"], "External");
    assert_eq!(by_metric["external"]["metric"]["name"], "velro_queue_waiting");
    assert_eq!(
        by_metric["external"]["target"],
        serde_json::json!({"type": "AverageValue", "averageValue": "50"})
    );
    let scaled = &find("keda", "ScaledObject").0["spec"];
    let trigger = &scaled["triggers"][0];
    assert_eq!(
        (trigger["type"].as_str(), &scaled["minReplicaCount"]),
        (Some("prometheus"), &Value::from(1))
    );
    let query = text(trigger, "/metadata/query");
    assert_eq!(
        query,
        "sum(max by (provider) (velro_queue_waiting{namespace=\"shop\",job=\"velro-metrics\"}))"
    );
    // KEDA takes texts only.
    assert!(trigger["metadata"].as_object().unwrap().values().all(Value::is_string));
    let metrics = read_file(&repository().join("server/src/telemetry/metrics/mod.rs"));
    assert!(
        metrics.contains("\"velro_queue_waiting\" [\"provider\"]"),
        "the metric has another name"
    );
}
