//! What happens to what runs: edits, upgrades, roll-backs, a second release in the same namespace.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use manifest::{Pods, labels, list, selects, text, variable};

/// Renders several sets of arguments and reads them with one interpreter.
fn render(sets: &[(&str, &str, &[&str])]) -> Cases {
    let texts: Vec<(&str, String)> = sets
        .iter()
        .map(|(name, release, arguments)| {
            let text = template(release, arguments).unwrap_or_else(|error| panic!("{name}: {error}"));
            (*name, text)
        })
        .collect();
    read_cases(&texts)
}

/// Templates of what goes on running, as texts by title.
fn templates(case: &Case) -> BTreeMap<String, String> {
    let workloads = case.manifests.iter().filter(|manifest| manifest.is_workload());
    workloads
        .map(|workload| (workload.title(), workload.0["spec"]["template"].to_string()))
        .collect()
}

#[test]
fn an_edit_of_the_registry_restarts_nothing_and_any_other_edit_does() {
    let plugins = values_of("plugins");
    let base = ["-f", plugins.as_str(), "--set", "secrets.env.FAL_KEY=a-key"];
    let with = |set: [&'static str; 2]| [&base[..], &set[..]].concat();
    let edits = [
        ("toml", with(["--set", "velroToml=service_name = \"x\""])),
        ("level", with(["--set", "log.level=debug"])),
        ("secret", with(["--set", "secrets.env.FAL_KEY=another-key"])),
        ("image", with(["--set", "image.tag=next"])),
    ];
    let registry = with(["--set", "providers.registry=[providers.none]"]);
    let mut sets: Vec<(&str, &str, &[&str])> = vec![("base", RELEASE, &base), ("registry", RELEASE, &registry)];
    sets.extend(edits.iter().map(|(name, arguments)| (*name, RELEASE, &arguments[..])));
    let cases = render(&sets);

    let before = cases.named("base");
    let edited = cases.named("registry");
    let changed: Vec<String> = before
        .manifests
        .iter()
        .zip(&edited.manifests)
        .filter(|(old, new)| old.0 != new.0)
        .map(|(old, _)| old.title())
        .collect();
    assert_eq!(changed, ["ConfigMap/velro-providers"]);
    for (name, _) in edits {
        assert_ne!(
            templates(before),
            templates(cases.named(name)),
            "{name} restarts nothing"
        );
    }
}

/// The kubelet renews a folder, never a file that is mounted by itself.
#[test]
fn an_edit_of_the_registry_reaches_running_pods() {
    let mut seen = 0;
    for case in &cases().all {
        for pods in case.manifests.iter().filter_map(Manifest::pods) {
            for container in pods.containers() {
                for mount in list(container, "/volumeMounts") {
                    assert!(mount.get("subPath").is_none(), "{}: {mount}", case.name);
                    if text(mount, "/name") == "providers" {
                        let file = format!("{}/providers.toml", text(mount, "/mountPath"));
                        assert_eq!(variable(container, "VELRO_PROVIDERS"), Some(file.as_str()));
                        seen += 1;
                    }
                }
            }
        }
    }
    assert!(seen >= 4, "only {seen} pods with a registry of their own");
}

#[test]
fn the_schema_is_migrated_before_the_pods_and_never_waits_for_them() {
    for case in &cases().all {
        let job = case.manifests.iter().find(|manifest| manifest.kind() == "Job");
        let serving: Vec<Pods<'_>> = case
            .manifests
            .iter()
            .filter_map(Manifest::pods)
            .filter(|pods| pods.serve())
            .collect();
        let migrate_first = serving.iter().all(|pods| {
            let mut before = list(pods.spec, "/initContainers");
            before.any(|container| text(container, "/command/1") == "migrate")
        });
        let is_embedded = case
            .manifests
            .iter()
            .any(|manifest| manifest.title() == "StatefulSet/velro");
        let is_bundled = case
            .manifests
            .iter()
            .any(|manifest| manifest.name().ends_with("-postgresql"));
        // A hook before the install of the bundled database would wait for it for ever.
        let expected = (!is_embedded && !is_bundled, is_bundled);
        assert_eq!((job.is_some(), migrate_first), expected, "{}", case.name);
        let Some(job) = job else { continue };
        assert_eq!(
            job.annotation("helm.sh/hook"),
            "pre-install,pre-upgrade",
            "{}",
            case.name
        );
        let container = job.pods().unwrap().containers().next().unwrap();
        assert_eq!(text(container, "/command/1"), "migrate");
        assert_eq!(container["image"], serving[0].containers().last().unwrap()["image"]);
        assert!(
            job.0["spec"]["activeDeadlineSeconds"].as_u64().unwrap() < 300,
            "longer than helm waits"
        );
    }
    let owner = &cases().named("keda").manifests;
    let job = owner.iter().find(|manifest| manifest.kind() == "Job").unwrap();
    let environment = job.0.pointer("/spec/template/spec/containers/0/env").unwrap();
    assert!(
        environment.to_string().contains("velro-owner"),
        "whoever owns the schema migrates it"
    );
}

/// An older release runs on the newer schema, so a roll-back has nothing to undo; and a hook that fails keeps its log.
#[test]
fn hooks_are_for_going_forward() {
    let known = ["pre-install,pre-upgrade", "test"];
    let mut seen = BTreeSet::new();
    for hook in cases()
        .all
        .iter()
        .flat_map(|case| &case.manifests)
        .filter(|manifest| manifest.is_hook())
    {
        let event = hook.annotation("helm.sh/hook");
        assert!(known.contains(&event), "{}: {event}", hook.title());
        assert_eq!(
            hook.annotation("helm.sh/hook-delete-policy"),
            "before-hook-creation,hook-succeeded",
            "{}: a second try must find room, and a failed one be looked at",
            hook.title()
        );
        seen.insert(event);
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn two_releases_in_a_namespace_do_not_meet() {
    let bundled = values_of("bundled");
    let long = "a-release-whose-name-is-as-long-as-helm-will-take-";
    let [longer, longest] = [format!("{long}it1"), format!("{long}it2")];
    let values: &[&str] = &["-f", &bundled];
    let cases = render(&[
        ("blue", "blue", values),
        ("green", "green", values),
        ("longer", &longer, values),
        ("longest", &longest, values),
    ]);
    assert!(cases.faults.is_empty(), "{:?}", cases.faults);
    for (one, other) in [("blue", "green"), ("longer", "longest")] {
        let [one, other] = [one, other].map(|name| &cases.named(name).manifests);
        let titles = |manifests: &[Manifest]| manifests.iter().map(Manifest::title).collect::<BTreeSet<_>>();
        let both: Vec<String> = titles(one).intersection(&titles(other)).cloned().collect();
        assert!(both.is_empty(), "both have {both:?}");
        let pointers = [
            "/spec/selector/matchLabels",
            "/spec/podSelector/matchLabels",
            "/spec/selector",
        ];
        for manifest in one.iter().filter(|manifest| manifest.kind() != "ServiceMonitor") {
            let Some(selector) = pointers.iter().find_map(|pointer| manifest.0.pointer(pointer)) else {
                continue;
            };
            for pods in other.iter().filter_map(Manifest::pods) {
                assert!(
                    !selects(Some(selector), pods.labels()),
                    "{} reaches the other",
                    manifest.title()
                );
            }
        }
    }
    // Redis is told apart too, if they share one.
    let prefixes: BTreeSet<&str> = ["blue", "green"]
        .iter()
        .flat_map(|name| &cases.named(name).manifests)
        .filter_map(Manifest::pods)
        .filter(|pods| pods.serve())
        .flat_map(Pods::containers)
        .filter_map(|container| variable(container, "VELRO_REDIS_PREFIX"))
        .collect();
    assert_eq!(
        prefixes,
        BTreeSet::from(["velro:shop:blue-velro:", "velro:shop:green-velro:"])
    );
}

#[test]
fn the_smoke_test_asks_the_release_s_service_with_its_image() {
    for case in &cases().all {
        let find = |kind: &str, end: &str| {
            let mut all = case.manifests.iter();
            all.find(|manifest| manifest.kind() == kind && manifest.name().ends_with(end))
        };
        let smoke = find("Pod", "-smoke").unwrap();
        let container = smoke.pods().unwrap().containers().next().unwrap();
        let name = smoke.name().trim_end_matches("-smoke");
        let service = find("Service", name).unwrap();
        let port = &service.0["spec"]["ports"][0]["port"];
        let command: Vec<&str> = list(container, "/command").filter_map(Value::as_str).collect();
        let url = format!("http://{name}:{port}");
        assert_eq!(
            command[..4],
            ["/usr/local/bin/velro", "smoke", "--url", &url],
            "{}",
            case.name
        );
        let workload = case.manifests.iter().find(|manifest| manifest.is_workload()).unwrap();
        let images: Vec<&Value> = workload
            .pods()
            .unwrap()
            .containers()
            .map(|other| &other["image"])
            .collect();
        assert!(images.contains(&&container["image"]), "{}: {images:?}", case.name);
        assert!(!labels(smoke.pods().unwrap().labels()).contains_key("velro/serves"));
    }
}
