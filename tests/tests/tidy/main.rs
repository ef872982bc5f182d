//! The architecture, as far as a machine can check it: every **Architecture invariant** of ARCHITECTURE.md that names
//! this test is a row or a check below. It reads the sources, so it also sees what the compiler would accept.
//!
//! To change a rule is to change the architecture: say why in ARCHITECTURE.md in the same commit.

#![allow(clippy::unwrap_used, clippy::panic)]

mod rules;
mod source;

use std::path::Path;
use std::sync::LazyLock;

use rules::{Confined, Layer};
use source::Source;

/// Who may use whom, bottom up. A module uses what its row names, and nothing else of the server.
const LAYERS: &[Layer] = &[
    // Tools without an opinion.
    layer("failpoint", ""),
    layer("clock", "failpoint"),
    layer("id", "clock"),
    layer("document", ""),
    // What an operator has stopped, in this process.
    layer("pause", "clock"),
    // The domain.
    layer("ledger", "id clock"),
    layer("generation", "ledger id clock"),
    layer("purchase", "ledger id clock"),
    layer("catalog", "generation ledger id clock document"),
    // What an operator set.
    layer("config", "catalog purchase document clock failpoint"),
    // The ports, and the way to Redis below them.
    layer("shared", ""),
    layer("store", "pause generation purchase ledger id clock"),
    layer("queue", "shared generation id clock"),
    layer("plugin", "config"),
    layer(
        "provider",
        "plugin pause catalog config document generation ledger id clock",
    ),
    layer("upstream", "provider config id clock"),
    layer("outputs", "upstream provider config generation id clock"),
    layer(
        "telemetry",
        "upstream store queue shared config generation ledger id clock",
    ),
    // The use cases.
    layer("auth", "store upstream config ledger id clock"),
    layer("payments", "store telemetry config purchase ledger id clock failpoint"),
    layer(
        "intake",
        "store queue provider telemetry catalog pause generation ledger id clock failpoint",
    ),
    layer(
        "worker",
        "store queue provider upstream outputs telemetry catalog pause generation ledger id clock failpoint",
    ),
    layer(
        "desk",
        "store provider upstream outputs telemetry catalog pause generation ledger id clock",
    ),
    // The edge.
    layer(
        "http",
        "auth payments intake desk store queue shared provider upstream outputs telemetry config catalog pause generation \
         purchase ledger id clock",
    ),
    // Who puts it together.
    layer("app", "*"),
    layer("cli", "*"),
    layer("main", "*"),
];

const fn layer(module: &'static str, uses: &'static str) -> Layer {
    Layer { module, uses }
}

const fn confined(path: &'static str, because: &'static str, within: &'static [&'static str]) -> Confined {
    Confined { path, within, because }
}

const HTTP_ONLY: &str = "public HTTP has one home, http/";
const PURE: &str = "the domain and the providers decide, they do not act: no I/O, no runtime";

const BOUNDARY: &str = "libraries of others are loaded in one place, plugin/, which checks them first";

const REDIS_IS_BOUNDED: &str =
    "Redis is reached through shared/, where every call is bounded and given up while it is away";

const TRACES: &str = "what a collector is told goes through telemetry/trace.rs, which keeps secrets out";

/// Who writes commands and scripts of Redis; connections are in `shared` alone.
const SPEAKING_REDIS: &[&str] = &[
    "server/src/shared/",
    "server/src/queue/redis/",
    "server/src/http/limits/shared.rs",
];

/// Everything in `server/src` that acts.
const ACTING: &[&str] = &[
    "server/src/app",
    "server/src/auth",
    "server/src/cli",
    "server/src/config",
    "server/src/desk",
    "server/src/failpoint",
    "server/src/http",
    "server/src/intake",
    "server/src/main",
    "server/src/outputs",
    "server/src/payments",
    "server/src/plugin",
    "server/src/queue",
    "server/src/shared",
    "server/src/store",
    "server/src/telemetry",
    "server/src/upstream",
    "server/src/worker",
];

/// Where libraries and parts of the standard library may be used.
const CONFINED: &[Confined] = &[
    confined("salvo", HTTP_ONLY, &["server/src/http/"]),
    confined("redis", REDIS_IS_BOUNDED, SPEAKING_REDIS),
    confined("bb8", REDIS_IS_BOUNDED, &["server/src/shared/"]),
    confined("bb8_redis", REDIS_IS_BOUNDED, &["server/src/shared/"]),
    confined("sqlx", "SQL has one home, store/", &["server/src/store/"]),
    confined(
        "reqwest",
        "outgoing HTTP has one home, upstream/, with its guard, time-outs and redaction",
        // The payment provider is at an address of the operator's: neither a client nor a provider names it.
        &[
            "server/src/upstream/",
            "server/src/cli",
            "server/src/payments/stripe.rs",
            // So is the collector of traces.
            "server/src/telemetry/trace.rs",
        ],
    ),
    confined("opentelemetry", TRACES, &["server/src/telemetry/trace.rs"]),
    confined("opentelemetry_sdk", TRACES, &["server/src/telemetry/trace.rs"]),
    confined("tracing_opentelemetry", TRACES, &["server/src/telemetry/"]),
    confined(
        "prometheus",
        "every metric is defined in one place",
        &["server/src/telemetry/metrics/"],
    ),
    confined("libloading", BOUNDARY, &["server/src/plugin/"]),
    confined("object", BOUNDARY, &["server/src/plugin/"]),
    confined("tokio", PURE, ACTING),
    confined("std::net", PURE, ACTING),
    confined("std::process", PURE, ACTING),
    confined("std::thread", PURE, ACTING),
    confined(
        "std::env",
        "the environment is read once, by config/, so that `velro check` sees all of it",
        &[
            "server/src/config/",
            "server/src/cli",
            "server/src/main.rs",
            "server/src/failpoint.rs",
            // Which machine this is, and where the own program is, to start it for a case.
            "server/src/plugin/",
        ],
    ),
];

/// Where `unsafe` may be written: both sides of the boundary to provider libraries.
const UNSAFE: &[&str] = &[
    "plugins/sdk/src/abi.rs",
    "plugins/sdk/src/export.rs",
    "server/src/plugin/answer.rs",
    "server/src/plugin/foreign.rs",
    "server/src/plugin/host.rs",
    "server/src/plugin/library.rs",
];

/// Every Rust file of the repository, read once.
fn sources() -> &'static [Source] {
    static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let below = |folder| Source::below(root, folder).unwrap_or_else(|error| panic!("{error}"));
        let all: Vec<Source> = ["server", "plugins", "tests", "benches"]
            .into_iter()
            .flat_map(below)
            .collect();
        assert!(
            all.len() > 50,
            "only {} files: is {} the repository?",
            all.len(),
            root.display()
        );
        all
    });
    &SOURCES
}

/// The files that are shipped.
fn shipped() -> impl Iterator<Item = &'static Source> {
    let tools = ["tests/", "benches/"];
    sources()
        .iter()
        .filter(move |source| !tools.iter().any(|folder| source.path.starts_with(folder)))
}

fn assert_none(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}\n{} in all", faults.join("\n"), faults.len());
}

#[test]
fn dependencies_point_one_way() {
    let server = sources().iter().filter(|source| source.path.starts_with("server/src/"));
    assert_none(server.flat_map(|source| rules::dependencies(source, LAYERS)).collect());
}

#[test]
fn the_layers_have_no_cycle() {
    for (at, layer) in LAYERS.iter().enumerate() {
        for used in layer.uses.split_whitespace().filter(|used| *used != "*") {
            let position = LAYERS.iter().position(|other| other.module == used);
            assert!(
                position.is_some_and(|position| position < at),
                "`{}` uses `{used}`, which is not below it",
                layer.module
            );
        }
    }
}

#[test]
fn libraries_stay_in_their_module() {
    assert_none(
        shipped()
            .flat_map(|source| rules::confinement(source, CONFINED))
            .collect(),
    );
}

#[test]
fn stored_times_have_one_source() {
    let others = shipped().filter(|source| source.path != "server/src/clock.rs");
    assert_none(others.flat_map(rules::wall_clock).collect());
}

#[test]
fn unsafe_code_is_at_the_boundary_only() {
    let others = sources()
        .iter()
        .filter(|source| !UNSAFE.contains(&source.path.as_str()));
    assert_none(others.flat_map(rules::unsafe_code).collect());
}

#[test]
fn nothing_is_left_undone() {
    assert_none(sources().iter().flat_map(rules::unfinished).collect());
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    assert_none(sources().iter().flat_map(rules::shape).collect());
}

/// The checks on small files with and without faults: a check that cannot fail proves nothing.
mod checks {
    use super::*;

    fn parse(path: &str, text: &str) -> Source {
        Source::parse(path, text).unwrap()
    }

    fn used_by(path: &str, text: &str) -> Vec<String> {
        rules::dependencies(&parse(path, text), LAYERS)
    }

    #[track_caller]
    fn assert_fault(faults: &[String], expected: &str) {
        assert!(
            faults.len() == 1 && faults[0].contains(expected),
            "expected `{expected}`, got {faults:?}"
        );
    }

    #[test]
    fn a_wrong_edge_is_found_however_it_is_written() {
        let ledger = "server/src/ledger/mod.rs";
        assert_fault(
            &used_by(ledger, "use crate::store::Store;"),
            "ledger/mod.rs:1: `ledger` may not use `store`",
        );
        assert_fault(
            &used_by(ledger, "\nuse crate::{id::UserId, queue};"),
            "mod.rs:2: `ledger` may not use `queue`",
        );
        assert_fault(&used_by(ledger, "fn f() -> crate::http::Problem { x }"), "`http`");
        assert_fault(&used_by(ledger, "use super::catalog::Model;"), "`catalog`");
        assert_fault(
            &used_by("server/src/ledger/rules/mod.rs", "use super::super::store;"),
            "`store`",
        );
        assert_fault(&used_by(ledger, "mod inner { use super::super::store; }"), "`store`");
        assert_fault(
            &used_by(ledger, "macro_rules! m { () => { $crate::store::f() } }"),
            "`store`",
        );
        assert_fault(&used_by(ledger, "use crate::*;"), "glob");
        assert_fault(
            &used_by("server/src/worker/mod.rs", "use crate::http::Services;"),
            "`http`",
        );
        assert_fault(
            &used_by("server/src/generation/mod.rs", "use crate::catalog::Model;"),
            "`catalog`",
        );
        assert_fault(&used_by("server/src/surprise.rs", "fn f() {}"), "no layer");
    }

    #[test]
    fn allowed_edges_own_items_comments_texts_and_tests_pass() {
        let text = r#"
            //! As [`crate::http::Problem`] says.
            use crate::{clock::Micros, id::{self, UserId}};
            use super::{Balance, Credits};
            pub(crate) fn f() -> &'static str { "crate::store::Store" }
            // use crate::store;
            #[cfg(test)]
            mod tests { use crate::store::Store; }
        "#;
        assert_eq!(used_by("server/src/ledger/account.rs", text), [""; 0]);
        let after = "#[cfg(test)]\nmod tests;\nuse crate::store::Store;";
        assert_fault(&used_by("server/src/ledger/mod.rs", after), "mod.rs:3");
    }

    #[test]
    fn libraries_are_found_outside_their_module() {
        let faults = |path: &str, text: &str| rules::confinement(&parse(path, text), CONFINED);
        for text in [
            "use salvo::Request;",
            "use salvo;",
            "extern crate salvo;",
            "fn f(r: ::salvo::Request) {}",
            "#[salvo(schema(rename = \"x\"))] struct S;",
        ] {
            assert_fault(&faults("server/src/app/mod.rs", text), "public HTTP");
            assert_eq!(faults("server/src/http/routes/auth.rs", text), [""; 0]);
        }
        assert_fault(
            &faults("server/src/http/mod.rs", "async fn f() { sqlx::query(\"\") }"),
            "SQL",
        );
        for text in ["use redis::Script;", "bb8_redis::bb8::Pool", "use bb8::Pool;"] {
            assert_fault(&faults("server/src/worker/mod.rs", text), "bounded");
            assert_eq!(faults("server/src/shared/mod.rs", text), [""; 0]);
        }
        assert_fault(
            &faults("server/src/ledger/mod.rs", "use tokio::sync::Mutex;"),
            "no runtime",
        );
        assert_fault(
            &faults("plugins/sdk/src/lib.rs", "use std::{fmt, net::TcpStream};"),
            "no I/O",
        );
        assert_fault(
            &faults("server/src/provider/fal/mod.rs", "reqwest::get(url)"),
            "upstream/",
        );
        assert_fault(
            &faults("server/src/worker/mod.rs", "std::env::var(\"PORT\")"),
            "read once",
        );
        assert_fault(&faults("server/src/worker/mod.rs", "use std::env;"), "read once");
        let innocent = "fn f(salvo: u8) { x.salvo; my::salvo::f(); \"sqlx::query\"; std::env!(\"A\"); } #[cfg(test)] mod t { use tokio; }";
        assert_eq!(faults("server/src/ledger/mod.rs", innocent), [""; 0]);
    }

    #[test]
    fn clocks_unsafe_and_unfinished_work_are_found() {
        let file = |text: &str| parse("server/src/worker/mod.rs", text);
        assert_fault(
            &rules::wall_clock(&file("let t = std::time::SystemTime::now();")),
            "clock.rs",
        );
        assert_fault(
            &rules::wall_clock(&file("let t = OffsetDateTime::now_utc();")),
            "clock.rs",
        );
        assert_eq!(
            rules::wall_clock(&file("let t = Instant::now(); let u = SystemTime::UNIX_EPOCH;")),
            [""; 0]
        );
        assert_fault(
            &rules::unsafe_code(&file("#[cfg(test)] mod t { fn f() { unsafe { g() } } }")),
            "unsafe",
        );
        assert_eq!(rules::unsafe_code(&file("#![forbid(unsafe_code)] // unsafe")), [""; 0]);
        assert_fault(&rules::unfinished(&file("fn f() { todo!() }")), "todo!");
        assert_fault(
            &rules::unfinished(&file("fn f() { std::unimplemented!(\"later\") }")),
            "unimplemented!",
        );
        assert_fault(
            &rules::unfinished(&file("#[test]\n#[ignore = \"slow\"]\nfn f() {}")),
            "mod.rs:2",
        );
        assert_fault(
            &rules::unfinished(&file("#[cfg_attr(unix, ignore)]\nfn f() {}")),
            "ignore",
        );
        assert_fault(
            &rules::unfinished(&file("/// ```ignore\n/// f()\n/// ```\nfn f() {}")),
            "mod.rs:1",
        );
        assert_eq!(
            rules::unfinished(&file("fn ignore(todo: u8) { f([ignore]); } // todo!()")),
            [""; 0]
        );
    }

    #[test]
    fn long_and_nameless_files_are_found() {
        let lines = |count: usize| format!("//! Doc.\n{}", "\n".repeat(count - 1));
        assert_eq!(rules::shape(&parse("a.rs", &lines(rules::MOST_LINES))), [""; 0]);
        assert_fault(
            &rules::shape(&parse("a.rs", &lines(rules::MOST_LINES + 1))),
            "601: longer",
        );
        assert_fault(&rules::shape(&parse("a.rs", "// Doc.\nfn f() {}")), "`//!`");
    }
}
