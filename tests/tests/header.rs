//! `velro_plugin.h` is what `abi.rs` says, compiles wherever it should, and lays its structs out as Rust does.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::process::Command;

use velro_plugin::abi;

#[test]
fn the_header_is_generated() {
    let kept = std::fs::read_to_string(tests::header::path()).unwrap();
    let generated = tests::header::generate().unwrap();
    let differs = kept.lines().zip(generated.lines()).position(|(kept, new)| kept != new);
    assert!(
        kept == generated,
        "the header is out of date (line {:?}): cargo run -p tests --bin header",
        differs.map(|line| line + 1)
    );
}

/// Everything the header offers, used as a plugin uses it.
const PLUGIN: &str = r#"
#include "velro_plugin.h"
VELRO_DECLARE_ABI(0);
static const velro_host *H;
static const velro_header HEADERS[] = {{VELRO_INIT("a"), VELRO_INIT("b")}};
static int32_t manifest(void *self, velro_out *out) {
  (void)self;
  if (VELRO_HAS(velro_out, out, log)) out->log(out, 4, VELRO_LIT("hello"));
  out->write(out, VELRO_LIT("{}"));
  return VELRO_OK;
}
static int32_t step(void *self, const velro_job *job, velro_out *out) {
  velro_action action = {0};
  (void)self;
  action.struct_size = sizeof action;
  action.kind = VELRO_NOT_SENT(job->transport_error) ? VELRO_ACT_WAIT : VELRO_ACT_FAIL;
  action.headers = HEADERS;
  action.header_count = 1;
  out->emit(out, &action);
  return job->event == VELRO_EV_START ? VELRO_OK : VELRO_E_UNSUPPORTED;
}
static velro_plugin table = {sizeof(velro_plugin), VELRO_F_SERIAL, VELRO_INIT("p"), VELRO_INIT("1"),
                             NULL, NULL, manifest, step, NULL, NULL};
VELRO_EXPORT const velro_plugin *velro_plugin_entry_v1(const velro_host *host) {
  H = host;
  return VELRO_HAS(velro_host, H, json_text) ? &table : NULL;
}
"#;

/// Compiles a source; the answer is what the compiler complains about.
fn compile(compiler: &str, arguments: &[&str], extension: &str, source: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(format!("plugin.{extension}"));
    std::fs::write(&file, source).unwrap();
    let done = Command::new(compiler)
        .args(arguments)
        .args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-fPIC", "-c", "-o"])
        .arg(folder.path().join("plugin.o"))
        .arg("-I")
        .arg(tests::header::path().parent().unwrap())
        .arg(&file)
        .output()
        .unwrap_or_else(|error| panic!("{compiler} does not run: {error}; make deps"));
    match done.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
    }
}

#[test]
fn the_header_compiles_as_c_and_cpp() {
    for (compiler, standard, extension) in [
        ("cc", "-std=c99", "c"),
        ("cc", "-std=c11", "c"),
        ("cc", "-std=c17", "c"),
        ("c++", "-std=c++17", "cpp"),
    ] {
        // `{0}` is C's way to say all zeroes.
        let source = if extension == "c" {
            PLUGIN.to_owned()
        } else {
            PLUGIN.replace("{0}", "{}")
        };
        if let Err(said) = compile(compiler, &[standard], extension, &source) {
            panic!("{compiler} {standard}: {said}");
        }
    }
}

/// Sizes and places of every struct, as assertions of C.
fn assertions() -> String {
    let mut text = String::from(
        "#include \"velro_plugin.h\"\n#ifndef __cplusplus\n#define static_assert _Static_assert\n#endif\n",
    );
    macro_rules! same_layout {
        ($($name:ident { $($field:ident),* $(,)? })*) => {$(
            writeln!(text, "static_assert(sizeof({0}) == {1}, \"{0}\");", stringify!($name), size_of::<abi::$name>()).unwrap();
            $(writeln!(
                text,
                "static_assert(offsetof({0}, {1}) == {2}, \"{0}.{1}\");",
                stringify!($name), stringify!($field), offset_of!(abi::$name, $field)
            ).unwrap();)*
        )*};
    }
    same_layout! {
        velro_str { ptr, len }
        velro_header { name, value }
        velro_job {
            struct_size, event, id, model, params_json, state, idempotency_key, webhook_url, now_ms, deadline_ms,
            attempt, steps, http_status, transport_error, headers, header_count, body,
        }
        velro_hook { struct_size, reserved, query, headers, header_count, body }
        velro_action {
            struct_size, kind, state, remote_id, progress_json, method, effect, flags, timeout_ms, url, headers,
            header_count, body, wait_ms, data_json, error_kind, retry, error_code, message,
        }
        velro_out { struct_size, reserved, emit, write, fault, log }
        velro_host { struct_size, abi_minor, version, json_raw, json_text }
        velro_plugin { struct_size, flags, name, version, create, destroy, manifest, step, quote, webhook }
        velro_abi_note { magic, major, minor, min_host_minor, reserved }
    }
    text
}

#[test]
fn c_and_rust_agree_on_the_layout() {
    let source = assertions();
    assert!(source.lines().count() > 80, "{source}");
    for (compiler, standard, extension) in [("cc", "-std=c11", "c"), ("c++", "-std=c++17", "cpp")] {
        if let Err(said) = compile(compiler, &[standard], extension, &source) {
            panic!("{compiler} {standard}: {said}");
        }
    }
    let wrong = source.replace("sizeof(velro_str) == 16", "sizeof(velro_str) == 17");
    assert!(
        compile("cc", &["-std=c11"], "c", &wrong).is_err(),
        "the assertions assert nothing"
    );
}

#[test]
fn every_constant_is_in_the_header() {
    let source = include_str!("../../plugins/sdk/src/abi.rs");
    let header = std::fs::read_to_string(tests::header::path()).unwrap();
    let constants = source.lines().filter_map(|line| line.strip_prefix("pub const VELRO_"));
    let mut seen = 0;
    for constant in constants {
        let (name, value) = constant.split_once(':').unwrap();
        let value = value.split_once("= ").unwrap().1.trim_end_matches(';');
        if name != "MAGIC" {
            let define = format!("#define VELRO_{name} {value}");
            assert!(
                header.lines().any(|line| line.trim_end_matches('u') == define),
                "{define} is missing"
            );
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen}");
}
