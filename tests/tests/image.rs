//! The container image as its files describe it: Dockerfile, `.dockerignore`, compose.yaml and railway.toml agree with the
//! workspace, the settings and the routes. Nothing is built here; `.ci/image` builds it and runs it.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn toml(path: &str) -> toml::Table {
    read(path).parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// One instruction, in one line.
#[derive(Debug)]
struct Instruction {
    /// How many `FROM` stand before it: 1 in the first stage.
    stage: usize,
    name: String,
    rest: String,
}

/// The instructions of the Dockerfile, comments and line ends taken out.
fn dockerfile() -> Vec<Instruction> {
    let text = read("Dockerfile");
    let code: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    let joined = code.join("\n").replace("\\\n", " ");
    let mut stage = 0;
    let mut instructions = Vec::new();
    for line in joined.lines().filter(|line| !line.trim().is_empty()) {
        let (name, rest) = line.split_once(' ').unwrap();
        stage += usize::from(name == "FROM");
        let rest = rest.split_whitespace().collect::<Vec<_>>().join(" ");
        let name = name.to_owned();
        instructions.push(Instruction { stage, name, rest });
    }
    instructions
}

/// The only instruction of that name in the last stage.
fn the_only(name: &str) -> String {
    let all = dockerfile();
    let last = all.last().unwrap().stage;
    let found: Vec<_> = all.into_iter().filter(|i| i.stage == last && i.name == name).collect();
    let [only] = found
        .try_into()
        .unwrap_or_else(|all| panic!("one {name} in the last stage: {all:?}"));
    only.rest
}

/// What an `ARG` before the first stage says.
fn argument(name: &str) -> String {
    let all = dockerfile();
    let mut early = all.iter().filter(|i| i.stage == 0 && i.name == "ARG");
    let found = early.find_map(|i| i.rest.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("ARG {name}")).to_owned()
}

/// Source and target of every `COPY` out of the repository, by stage.
fn copied() -> Vec<(usize, String, String)> {
    let all = dockerfile();
    let copies = all.iter().filter(|i| i.name == "COPY" && !i.rest.contains("--from="));
    let pairs = copies.flat_map(|i| {
        let words: Vec<&str> = i.rest.split(' ').collect();
        let (target, sources) = words.split_last().unwrap();
        let pair = |source: &&str| (i.stage, (*source).to_owned(), (*target).to_owned());
        sources.iter().map(pair).collect::<Vec<_>>()
    });
    pairs.collect()
}

fn members() -> Vec<String> {
    let manifest = toml("Cargo.toml");
    let members = manifest["workspace"]["members"].as_array().unwrap();
    members
        .iter()
        .map(|member| member.as_str().unwrap().to_owned())
        .collect()
}

/// Names in the first column of the README's tables.
fn variables() -> BTreeSet<String> {
    let readme = read("README.md");
    let rows = readme
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.split('|').next());
    let names = rows.flat_map(|cell| {
        cell.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    names.collect()
}

/// Whether a build may see a file: the last rule of `.dockerignore` that fits it, or a folder it is in, counts.
fn is_sent(path: &str, rules: &str) -> bool {
    let mut sent = true;
    for rule in rules.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (takes, pattern) = rule.strip_prefix('!').map_or((false, rule), |pattern| (true, pattern));
        let within =
            |part: &str| part == pattern || part.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('/'));
        let fits = match pattern.strip_prefix("**/") {
            Some(name) => path.split('/').any(|part| wildcard(part, name)),
            None => pattern == "*" || within(path),
        };
        sent = if fits { takes } else { sent };
    }
    sent
}

/// Whether a name fits a pattern with `*` in it.
fn wildcard(name: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => name == pattern,
        Some((before, after)) => name
            .strip_prefix(before)
            .is_some_and(|rest| (0..=rest.len()).any(|at| rest.get(at..).is_some_and(|rest| wildcard(rest, after)))),
    }
}

#[test]
fn the_dependencies_are_compiled_with_the_manifest_of_every_member() {
    let there: BTreeSet<_> = copied().into_iter().filter(|(stage, ..)| *stage == 1).collect();
    let manifests = members()
        .into_iter()
        .map(|member| (1, format!("{member}/Cargo.toml"), format!("{member}/")));
    let top = ["Cargo.toml", "Cargo.lock"].map(|file| (1, file.to_owned(), "./".to_owned()));
    let needed: BTreeSet<_> = manifests.chain(top).collect();
    assert_eq!(
        there, needed,
        "the first stage of the Dockerfile copies exactly the manifests"
    );
}

#[test]
fn the_program_and_every_library_are_built_and_shipped() {
    let all = dockerfile();
    let stage = |n| {
        all.iter()
            .filter(move |i| i.stage == n)
            .map(|i| i.rest.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let (first, second) = (stage(1), stage(2));
    for build in all.iter().filter(|i| i.rest.contains("cargo build")) {
        assert!(
            build.rest.contains("cargo build --release --locked ${PACKAGES}"),
            "{build:?}"
        );
    }
    for member in members()
        .iter()
        .filter(|m| m.starts_with("plugins/") && *m != "plugins/sdk")
    {
        let package = toml(&format!("{member}/Cargo.toml"))["package"]["name"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(first.contains(&format!("-p {package}")), "{package} is not built");
        assert!(
            second.contains(&format!("target/release/lib{}.so", package.replace('-', "_"))),
            "{package} is not shipped"
        );
        assert!(
            copied()
                .iter()
                .any(|(n, from, _)| *n == 2 && member.starts_with(from.as_str())),
            "{member} is not copied"
        );
    }
    assert!(first.contains("-p velro "), "{first}");
}

#[test]
fn versions_are_those_of_the_workspace() {
    let manifest = toml("Cargo.toml");
    let package = &manifest["workspace"]["package"];
    let (rust, version) = (
        package["rust-version"].as_str().unwrap(),
        package["version"].as_str().unwrap(),
    );
    let runtime = argument("RUNTIME_IMAGE");
    let debian = runtime
        .strip_prefix("docker.io/library/debian:")
        .unwrap()
        .strip_suffix("-slim")
        .unwrap();
    let build = argument("BUILD_IMAGE");
    assert_eq!(
        build,
        format!("docker.io/library/rust:{rust}-slim-{debian}"),
        "the same Rust, and the same Debian in both"
    );
    let label = format!("org.opencontainers.image.version=\"{version}\"");
    assert!(
        the_only("LABEL").contains(&label),
        "the label says another version than Cargo.toml"
    );
    assert!(
        read(".ci/image").contains(&format!("\nSUITE={debian} ")),
        ".ci/image tries another Debian"
    );
    let stages: Vec<_> = dockerfile()
        .into_iter()
        .filter(|i| i.name == "FROM")
        .map(|i| i.rest)
        .collect();
    assert_eq!(
        stages,
        [
            "${BUILD_IMAGE} AS dependencies",
            "dependencies AS build",
            "${RUNTIME_IMAGE}"
        ]
    );
}

#[test]
fn it_starts_as_nobody_in_particular_and_hears_the_signal() {
    assert_eq!(the_only("USER"), "65532:65532");
    let exec_form = |text: &str| serde_json::from_str::<Vec<String>>(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let entry = exec_form(&the_only("ENTRYPOINT"));
    let health = the_only("HEALTHCHECK");
    let (_, command) = health.split_once("CMD ").unwrap();
    assert_eq!(exec_form(command), [entry[0].as_str(), "healthcheck"]);
    assert_eq!(
        entry.len(),
        1,
        "arguments given to the image are arguments of velro: {entry:?}"
    );
    assert_eq!(the_only("STOPSIGNAL"), "SIGTERM");
    let defaults = toml("server/src/config/defaults.toml");
    let port = defaults["server"]["port"].to_string();
    assert!(the_only("EXPOSE").split(' ').any(|exposed| exposed == port), "{port}");
    let all = dockerfile();
    let last = all.last().unwrap().stage;
    let fault = all
        .iter()
        .find(|i| i.name == "VOLUME" || (i.stage == last && i.name == "RUN"));
    assert!(
        fault.is_none(),
        "Railway refuses VOLUME, and another base may have no shell: {fault:?}"
    );
    assert!(
        !read("Dockerfile").contains("--mount="),
        "Railway refuses cache mounts without its own ids"
    );
}

#[test]
fn the_variables_it_sets_exist() {
    let mut known = variables();
    assert!(
        known.contains("JWT_SECRET"),
        "README.md names its variables in another way now"
    );
    let set = the_only("ENV");
    let names: Vec<&str> = set.split(' ').map(|pair| pair.split_once('=').unwrap().0).collect();
    for name in ["ENVIRONMENT", "VELRO_DATA", "VELRO_PLUGIN_DIR", "VELRO_PROVIDERS"] {
        assert!(names.contains(&name), "{name} is not set: {names:?}");
    }
    let compose = read("compose.yaml");
    let lines = compose.lines().map(str::trim).filter_map(|line| line.split_once(':'));
    let upper = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let given: Vec<&str> = lines.map(|(name, _)| name).filter(|name| upper(name)).collect();
    assert!(
        given.contains(&"JWT_SECRET") && given.contains(&"REDIS_URL"),
        "{given:?}"
    );
    // What the build takes stands among them.
    let arguments = dockerfile().into_iter().filter(|i| i.name == "ARG");
    known.extend(arguments.filter_map(|i| Some(i.rest.split_once('=')?.0.to_owned())));
    for name in names
        .into_iter()
        .chain(given)
        .filter(|name| !name.starts_with("POSTGRES_"))
    {
        assert!(known.contains(name), "README.md does not know {name}");
    }
}

#[test]
fn a_build_sees_what_it_needs_and_no_more() {
    let rules = read(".dockerignore");
    for (_, source, _) in copied() {
        assert!(root().join(&source).exists(), "COPY {source}: there is no such thing");
        assert!(is_sent(&source, &rules), "COPY {source}: .dockerignore keeps it out");
    }
    let mut needed = Vec::new();
    for folder in [
        "server/src",
        "migrations",
        "plugins/sdk/src",
        "plugins/sdk/include",
        "plugins/replicate/src",
    ] {
        collect(folder, &mut needed);
    }
    assert!(needed.iter().any(|path| path.ends_with("defaults.toml")), "{needed:?}");
    assert!(needed.iter().any(|path| path.ends_with(".sql")), "{needed:?}");
    let missing: Vec<_> = needed.iter().filter(|path| !is_sent(path, &rules)).collect();
    assert!(
        missing.is_empty(),
        ".dockerignore keeps out what is compiled: {missing:?}"
    );
    for path in [
        "target/release/velro",
        "plugins/replicate/target/debug/x",
        "data/velro.db",
        "data/jwt_secret",
        "server/data/outputs/picture.png",
        "server/src/jwt_secret",
        "server/velro.db-wal",
        ".git/config",
        ".env",
        "server/.env.local",
        "velro.toml",
        "plugins/sdk/tls.pem",
        "tests/clients/package.json",
        "some-new-folder/key",
    ] {
        assert!(!is_sent(path, &rules), "{path} would be sent to the build");
    }
}

/// Adds every file below a folder, by its path in the repository.
fn collect(folder: &str, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        match entry.file_type().unwrap().is_dir() {
            true => collect(&path, files),
            false => files.push(path),
        }
    }
}

#[test]
fn railway_asks_a_route_that_exists_and_waits_for_the_end() {
    let railway = toml("railway.toml");
    let (build, deploy) = (&railway["build"], &railway["deploy"]);
    assert_eq!(build["builder"].as_str(), Some("DOCKERFILE"));
    assert!(root().join(build["dockerfilePath"].as_str().unwrap()).exists());
    let document = serde_json::to_value(velro::http::openapi::document()).unwrap();
    let path = deploy["healthcheckPath"].as_str().unwrap();
    assert!(document["paths"][path]["get"].is_object(), "{path} is no route");
    let defaults = toml("server/src/config/defaults.toml");
    let grace = defaults["server"]["shutdown_grace_seconds"].as_integer().unwrap();
    let waits = deploy["drainingSeconds"].as_integer().unwrap();
    assert!(
        waits >= grace + 10,
        "Railway kills after {waits} s, a stop may take {grace} s"
    );
    let seconds: String = read("compose.yaml")
        .split("stop_grace_period: ")
        .nth(1)
        .unwrap()
        .chars()
        .take(3)
        .collect();
    assert_eq!(seconds, format!("{waits}s"), "compose.yaml waits for another time");
}

#[test]
fn the_rules_of_dockerignore_are_read_as_docker_reads_them() {
    let rules = "# what\n*\n!src\n!one/Cargo.toml\n**/data\n**/*.db-*\n";
    for path in ["src", "src/a/b.rs", "one/Cargo.toml"] {
        assert!(is_sent(path, rules), "{path}");
    }
    for path in [
        "srcs",
        "a",
        "one/src/lib.rs",
        "src/data",
        "src/a/data/x",
        "src/x.db-wal",
    ] {
        assert!(!is_sent(path, rules), "{path}");
    }
    assert!(wildcard(".env.local", ".env*") && !wildcard("env", ".env*") && wildcard("a.db", "*.db"));
}
