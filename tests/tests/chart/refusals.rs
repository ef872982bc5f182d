//! Values that cannot work, and the sentence that says so. All of one refusal come at once.

use super::*;

const JWT: &str = "secrets.env.JWT_SECRET=7d1f0a5e9c3b48627d1f0a5e9c3b4862";
const DATABASE: &str = "secrets.env.DATABASE_URL=postgres://velro@db/velro";

/// What is set beside the case's own values, and a part of the answer. `@` begins from the values of a case.
const REFUSED: &[(&str, &[&str], &str)] = &[
    // The database and how many pods there are.
    (
        "",
        &["api.replicas=2"],
        "set api.replicas=1, or mode=all (or split) with a PostgreSQL",
    ),
    ("", &["api.autoscaling.enabled=true"], "mode embedded is one pod"),
    (
        "",
        &[DATABASE],
        "mode embedded keeps everything in SQLite: set mode=all or mode=split",
    ),
    (
        "",
        &["postgresql.enabled=true", "postgresql.password=secret"],
        "mode embedded keeps everything in SQLite",
    ),
    (
        "",
        &["redis.enabled=true", "redis.password=secret"],
        "mode embedded is one pod, which needs none",
    ),
    (
        "",
        &["persistence.accessMode=ReadWriteMany"],
        "SQLite does not work on network file systems",
    ),
    (
        "",
        &["mode=split", JWT],
        "mode split needs a PostgreSQL: set secrets.env.DATABASE_URL",
    ),
    (
        "",
        &["mode=all", JWT, "secrets.env.DATABASE_URL=sqlite:/data/velro.db"],
        "is not the URL of a PostgreSQL",
    ),
    ("bundled", &[DATABASE], "name two databases: remove one"),
    (
        "bundled",
        &["secrets.env.REDIS_URL=redis://redis"],
        "name two Redis: remove one",
    ),
    (
        "bundled",
        &["migration.existingSecret=owner"],
        "migration.existingSecret is for a database of your own",
    ),
    (
        "bundled",
        &["postgresql.password="],
        "postgresql.password is empty: choose one",
    ),
    ("bundled", &["redis.password="], "redis.password is empty: choose one"),
    (
        "bundled",
        &["postgresql.password=p@ss/word"],
        "use letters, digits, and - _ . ~",
    ),
    (
        "bundled",
        &["persistence.enabled=false"],
        "several pods have to share the outputs: switch it on",
    ),
    (
        "bundled",
        &["persistence.accessMode=ReadWriteOnce"],
        "leave it empty for ReadWriteMany",
    ),
    (
        "one-node",
        &["api.replicas=2"],
        "several pods have to share the outputs",
    ),
    // Secrets.
    (
        "",
        &["environment=production"],
        "JWT_SECRET is missing, which mode embedded in environment production needs",
    ),
    (
        "",
        &["mode=all", DATABASE],
        "32 random characters or more (openssl rand -hex 32)",
    ),
    ("", &["secrets.env.JWT_SECRET=short"], "has 5 characters, 32 are needed"),
    (
        "",
        &["secrets.existingSecret=velro", JWT],
        "secrets.existingSecret and secrets.env are both set",
    ),
    (
        "",
        &["extraEnv[0].name=FAL_KEY", "extraEnv[0].value=key"],
        "shows the secret FAL_KEY to whoever may read pods",
    ),
    (
        "",
        &["velroToml=[auth]\njwt_secret = \"7d1f0a5e9c3b4862\""],
        "velroToml has a secret, and becomes a ConfigMap",
    ),
    (
        "",
        &["velroToml=payments = { stripe_secret_key = 'sk_live' }"],
        "velroToml has a secret",
    ),
    ("", &["velroToml=fal.key = \"a\""], "velroToml has a secret"),
    // Scaling and stopping.
    (
        "",
        &["worker.autoscaling.enabled=true"],
        "there are no worker pods in mode embedded: set mode=split",
    ),
    (
        "production",
        &["api.autoscaling.maxReplicas=2"],
        "api.autoscaling.minReplicas is 3, more than maxReplicas, 2",
    ),
    (
        "production",
        &["worker.autoscaling.minReplicas=0"],
        "worker.autoscaling.minReplicas: Must be greater than or equal to 1",
    ),
    (
        "production",
        &["worker.autoscaling.engine=keda"],
        "worker.autoscaling.keda.serverAddress is empty",
    ),
    (
        "production",
        &["api.resources.requests.cpu=null"],
        "set api.resources.requests.cpu",
    ),
    (
        "",
        &["shutdown.delaySeconds=30"],
        "nothing is left for what is in flight",
    ),
    // One thing twice, or by half, or spelled wrong.
    (
        "plugins",
        &["providers.existingConfigMap=registry"],
        "are both set: choose one",
    ),
    (
        "plugins",
        &["plugins.existingClaim=libraries"],
        "both fill /plugins: choose one",
    ),
    ("", &["ingress.enabled=true"], "ingress.hosts is empty: name a host"),
    (
        "",
        &["ingress.hosts={https://api.example.com/}"],
        "write api.example.com, without https:// and path",
    ),
    ("", &["metrics.port=8000"], "metrics would be as public as the API"),
    (
        "",
        &["extraEnv[0].name=PORT", "extraEnv[0].value=x"],
        "extraEnv sets PORT, which the chart sets itself",
    ),
    (
        "",
        &["publicUrl=https://api.example.com/"],
        "without a slash at the end",
    ),
    (
        "",
        &["publicUrl=api.example.com"],
        "publicUrl is not a base URL: write for example https://",
    ),
    (
        "",
        &["tracing.endpoint=http://me:secret@collector:4318"],
        "goes into OTEL_EXPORTER_OTLP_HEADERS in the Secret",
    ),
    (
        "",
        &["corsOrigins={*}"],
        "write https://app.example.com, without a path",
    ),
    ("", &["operatorEmails={ann}"], "has something that is no e-mail address"),
    (
        "",
        &["image.repository=velro:1.0"],
        "tag and digest have values of their own",
    ),
    (
        "",
        &["image.digest=sha256:abc"],
        "write sha256: and 64 hexadecimal digits",
    ),
    // The schema.
    (
        "",
        &["mode=both"],
        "mode must be one of the following: \"embedded\", \"all\", \"split\"",
    ),
    (
        "",
        &["api.replica=2"],
        "api: Additional property replica is not allowed",
    ),
    ("", &["apis.replicas=2"], "Additional property apis is not allowed"),
    (
        "",
        &["api.replicas=many"],
        "api.replicas: Invalid type. Expected: integer, given: string",
    ),
    (
        "",
        &["api.replicas=-1"],
        "api.replicas: Must be greater than or equal to 0",
    ),
    (
        "",
        &["metrics.port=70000"],
        "metrics.port: Must be less than or equal to 65535",
    ),
    (
        "",
        &["tracing.sampleRatio=2"],
        "tracing.sampleRatio: Must be less than or equal to 1",
    ),
    (
        "",
        &["trustProxyHeaders=yes"],
        "trustProxyHeaders must be one of the following",
    ),
    (
        "",
        &["secrets.env.DEFAULT_USER_CREDITS=5"],
        "Invalid type. Expected: string, given: integer",
    ),
    (
        "",
        &["persistence.size=lots"],
        "persistence.size: Does not match pattern",
    ),
    (
        "",
        &["api.podDisruptionBudget.maxUnavailable=0"],
        "api.podDisruptionBudget.maxUnavailable",
    ),
    ("", &["api.podLabels.app\\.kubernetes\\.io/name=x"], "api.podLabels"),
    ("", &["extraEnv[0].value=x"], "extraEnv.0: name is required"),
    (
        "",
        &["service.type=ExternalName"],
        "service.type must be one of the following",
    ),
];

fn attempt(case: &str, settings: &[&str]) -> Result<String, String> {
    let file = values_of(case);
    let mut arguments: Vec<&str> = if case.is_empty() { vec![] } else { vec!["-f", &file] };
    for setting in settings {
        arguments.extend(["--set", setting]);
    }
    template(RELEASE, &arguments)
}

#[test]
fn what_cannot_work_is_refused_with_what_to_do() {
    let wrong = |(case, settings, expected): &(&str, &[&str], &str)| match attempt(case, settings) {
        Ok(_) => Some(format!("{case} {settings:?}: is taken")),
        Err(answer) if !answer.contains(expected) => Some(format!("{case} {settings:?}: {answer}")),
        Err(_) => None,
    };
    // Two cores are there to be used: each of these is a process.
    let (first, second) = REFUSED.split_at(REFUSED.len() / 2);
    let faults: Vec<String> = std::thread::scope(|scope| {
        let other = scope.spawn(|| second.iter().filter_map(wrong).collect::<Vec<_>>());
        let mut faults: Vec<String> = first.iter().filter_map(wrong).collect();
        faults.extend(other.join().unwrap());
        faults
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn all_faults_come_at_once() {
    let answer = attempt(
        "",
        &[
            "mode=split",
            "ingress.enabled=true",
            "publicUrl=x",
            "shutdown.delaySeconds=99",
        ],
    )
    .unwrap_err();
    let faults = answer.lines().filter(|line| line.starts_with("- ")).count();
    assert_eq!(faults, 5, "{answer}");
}

#[test]
fn what_looks_like_a_secret_and_is_none_is_taken() {
    let harmless = "velroToml=[auth]\naccess_token_minutes = 5\n[supabase]\nanon_key = \"public\"\n[fal]\nkey = \"\"";
    for setting in [harmless, "extraEnv[0].name=RATE_LIMIT_ENABLED"] {
        if let Err(answer) = attempt("", &[setting]) {
            panic!("{setting}: {answer}");
        }
    }
}
