//! What the network policies let through, and that the rest is refused.

use super::*;
use manifest::{list, text};

fn policy(case: &str, name: &str) -> &'static Value {
    let mut all = cases().named(case).manifests.iter();
    let found = all.find(|manifest| manifest.kind() == "NetworkPolicy" && manifest.name() == name);
    &found.unwrap_or_else(|| panic!("{case} has no policy {name}")).0["spec"]
}

/// Ports of the rules of one direction, each list with whether the rule is for certain peers only.
fn ports(policy: &Value, direction: &str, peers: &str) -> Vec<(Vec<u64>, bool)> {
    let rule = |rule: &Value| {
        let ports = list(rule, "/ports")
            .map(|port| port["port"].as_u64().unwrap())
            .collect();
        (ports, rule.get(peers).is_some())
    };
    list(policy, &format!("/{direction}")).map(rule).collect()
}

fn policies(case: &Case) -> impl Iterator<Item = &Manifest> {
    let all = case.manifests.iter();
    all.filter(|manifest| manifest.kind() == "NetworkPolicy")
}

#[test]
fn both_directions_are_refused_unless_a_rule_says_otherwise() {
    let mut seen = 0;
    for case in &cases().all {
        for policy in policies(case) {
            let types: Vec<&str> = list(&policy.0, "/spec/policyTypes").filter_map(Value::as_str).collect();
            assert_eq!(types, ["Ingress", "Egress"], "{}: {}", case.name, policy.title());
            // A rule without ports and peers is no rule at all: it allows everything.
            let rules = ["/spec/ingress", "/spec/egress"].map(|pointer| list(&policy.0, pointer));
            for rule in rules.into_iter().flatten() {
                assert!(rule.as_object().is_some_and(|rule| !rule.is_empty()), "{}", case.name);
            }
            seen += 1;
        }
    }
    assert!(seen > 8, "only {seen} policies");
}

/// A label with a typing mistake is a way that is shut.
#[test]
fn peers_of_the_release_are_pods_that_exist() {
    let mut seen = 0;
    for case in &cases().all {
        for policy in policies(case) {
            let ways_in = list(&policy.0, "/spec/ingress").flat_map(|rule| list(rule, "/from"));
            let ways_out = list(&policy.0, "/spec/egress").flat_map(|rule| list(rule, "/to"));
            let own = |labels: &&Value| labels.get("app.kubernetes.io/instance").is_some();
            let peers = ways_in
                .chain(ways_out)
                .filter_map(|peer| peer.pointer("/podSelector/matchLabels"));
            for labels in peers.filter(own) {
                let mut pods = case.manifests.iter().filter_map(Manifest::pods);
                let is_there = pods.any(|pods| manifest::selects(Some(labels), pods.labels()));
                assert!(is_there, "{}: {}: nobody is {labels}", case.name, policy.title());
                seen += 1;
            }
        }
    }
    assert!(seen >= 5, "only {seen} peers");
}

#[test]
fn production_reaches_what_it_needs_and_no_more() {
    let policy = policy("production", "velro");
    let egress = ports(policy, "egress", "to");
    // DNS, providers, PostgreSQL, Redis, traces. The collector is known by its port only.
    let expected = [
        (vec![53, 53], true),
        (vec![443], true),
        (vec![6432], true),
        (vec![6379], true),
        (vec![4318], false),
    ];
    assert_eq!(egress, expected);
    assert_eq!(
        ports(policy, "ingress", "from"),
        [(vec![8000], true), (vec![9090], true)]
    );
    let peers: Vec<&Value> = list(policy, "/ingress/0/from").collect();
    let names = ["kubernetes.io~1metadata.name", "app.kubernetes.io~1component"];
    assert_eq!(
        text(peers[0], &format!("/namespaceSelector/matchLabels/{}", names[0])),
        "ingress-nginx"
    );
    // `helm test` is not shut out by whoever narrows the way in.
    assert_eq!(
        text(peers[1], &format!("/podSelector/matchLabels/{}", names[1])),
        "smoke"
    );
}

#[test]
fn providers_are_on_public_addresses() {
    let policy = policy("default", "velro");
    let blocks = list(policy, "/egress/1/to").map(|peer| &peer["ipBlock"]);
    let except: Vec<&str> = blocks
        .flat_map(|block| list(block, "/except"))
        .filter_map(Value::as_str)
        .collect();
    for private in [
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "fc00::/7",
    ] {
        assert!(except.contains(&private), "{private} can be reached: {except:?}");
    }
    // A trial needs nothing but names and providers.
    assert_eq!(ports(policy, "egress", "to"), [(vec![53, 53], true), (vec![443], true)]);
}

#[test]
fn bundled_servers_hear_velro_only() {
    for (name, port) in [("velro-postgresql", 5432), ("velro-redis", 6379)] {
        let policy = policy("bundled", name);
        assert_eq!(ports(policy, "ingress", "from"), [(vec![port], true)]);
        assert_eq!(ports(policy, "egress", "to"), []);
        let labels = policy.pointer("/ingress/0/from/0/podSelector/matchLabels");
        let pods: Vec<String> = cases()
            .named("bundled")
            .manifests
            .iter()
            .filter(|manifest| {
                manifest
                    .pods()
                    .is_some_and(|pods| manifest::selects(labels, pods.labels()))
            })
            .map(Manifest::title)
            .collect();
        assert_eq!(pods, ["Deployment/velro-api", "Deployment/velro-worker"]);
    }
    let own = policy("bundled", "velro");
    let expected = [
        (vec![53, 53], true),
        (vec![443], true),
        (vec![5432], true),
        (vec![6379], true),
    ];
    assert_eq!(ports(own, "egress", "to"), expected);
}

/// The hook's policy comes before the release's own, and reaches the database.
#[test]
fn the_migration_reaches_the_database_only() {
    let policy = policy("production", "velro-migrate");
    assert_eq!(
        ports(policy, "egress", "to"),
        [(vec![53, 53], true), (vec![6432], true)]
    );
    assert_eq!(ports(policy, "ingress", "from"), []);
}
