//! `plugins/sdk/include/velro_plugin.h`: generated from `plugins/sdk/src/abi.rs`, so that there is one definition of the
//! boundary. `cargo run -p tests --bin header` writes it, the test `header` holds both together.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cbindgen::{Builder, Config, ConstantConfig, DocumentationStyle, ExportConfig, Language, Style};
use velro_plugin::abi;

/// Everything before the includes: the rules of the boundary in words.
const HEAD: &str = include_str!("header/head.txt");
/// After the includes: what the rest needs.
const EXPORT: &str = include_str!("header/export.txt");
/// The end: what a plugin exports, and conveniences. `@MAGIC@` is filled in.
const TAIL: &str = include_str!("header/tail.txt");

/// The structs of the boundary. cbindgen finds types through functions, and this file has none.
const TYPES: [&str; 9] = [
    "velro_str",
    "velro_header",
    "velro_job",
    "velro_hook",
    "velro_action",
    "velro_out",
    "velro_host",
    "velro_plugin",
    "velro_abi_note",
];

/// Where the header is kept.
pub fn path() -> PathBuf {
    sdk().join("include/velro_plugin.h")
}

fn sdk() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/sdk")
}

/// The header as it should be.
pub fn generate() -> Result<String> {
    let config = Config {
        header: Some(HEAD.trim_end().to_owned()),
        include_guard: Some("VELRO_PLUGIN_H".into()),
        no_includes: true,
        after_includes: Some(format!("\n{}", EXPORT.trim_end())),
        trailer: Some(TAIL.replace("@MAGIC@", &magic()).trim_end().to_owned()),
        language: Language::C,
        cpp_compat: true,
        style: Style::Both,
        usize_is_size_t: true,
        documentation: true,
        documentation_style: DocumentationStyle::C,
        line_length: 120,
        export: ExportConfig {
            include: TYPES.map(str::to_owned).to_vec(),
            // An array cannot be a #define; the macro that uses it has its bytes.
            exclude: vec!["VELRO_MAGIC".into()],
            ..ExportConfig::default()
        },
        constant: ConstantConfig::default(),
        ..Config::default()
    };
    let bindings = Builder::new()
        .with_config(config)
        .with_src(sdk().join("src/abi.rs"))
        .generate()
        .context("cbindgen cannot read abi.rs")?;
    let mut text = Vec::new();
    bindings.write(&mut text);
    let text = String::from_utf8(text).context("the header is not UTF-8")?;
    Ok(tidy(&text))
}

/// `'V', 'E', ...`
fn magic() -> String {
    let letters = abi::VELRO_MAGIC.map(|byte| format!("'{}'", char::from(byte)));
    letters.join(", ")
}

/// What cbindgen cannot be told: unsigned constants are unsigned in C too, `self_` is a name in C, types have names without
/// `struct`, a comment of one line takes one line, and constants of a kind stand together.
fn tidy(text: &str) -> String {
    let signed = |name: &str| name == "VELRO_OK" || name.starts_with("VELRO_E_");
    let mut lines: Vec<String> = Vec::new();
    let mut inside = "";
    let mut rest = text.lines().peekable();
    while let Some(line) = rest.next() {
        let line = line.trim_end();
        // cbindgen writes `/**`, ` * text`, ` */`.
        if line.trim_start() == "/*" || line.trim_start() == "/**" {
            let mut comment = Vec::new();
            for inner in rest.by_ref() {
                if inner.trim() == "*/" {
                    break;
                }
                comment.push(inner.trim_start().trim_start_matches('*').trim().to_owned());
            }
            let indent = &line[..line.len() - line.trim_start().len()];
            lines.extend(comment_lines(indent, &comment.join(" ")));
            continue;
        }
        match line.strip_prefix("#define ").and_then(|define| define.split_once(' ')) {
            Some((name, value)) if value.bytes().all(|b| b.is_ascii_digit()) && !signed(name) => {
                lines.push(format!("#define {name} {value}u"));
            }
            _ => {
                let mut line = line.to_owned();
                if let Some(name) = TYPES.iter().find(|name| line == format!("typedef struct {name} {{")) {
                    inside = name;
                } else if line.starts_with("  ") {
                    // Inside its own definition a type has no other name yet.
                    for name in TYPES.iter().filter(|name| **name != inside) {
                        line = line.replace(&format!("struct {name} "), &format!("{name} "));
                    }
                }
                lines.push(line.replace("self_", "self"));
            }
        }
    }
    let together = |at: usize| {
        let define = |at: usize| lines.get(at).and_then(|line| line.strip_prefix("#define "));
        at > 0
            && lines[at].is_empty()
            && define(at - 1)
                .zip(define(at + 2))
                .is_some_and(|(a, b)| kind(a) == kind(b))
    };
    let kept = (0..lines.len())
        .filter(|at| !together(*at))
        .map(|at| lines[at].as_str());
    let mut tidied = kept.collect::<Vec<_>>().join("\n");
    while tidied.contains("\n\n\n") {
        tidied = tidied.replace("\n\n\n", "\n\n");
    }
    format!("{}\n", tidied.trim_end())
}

/// What a constant is one of: the second word of its name, if it has more than two.
fn kind(define: &str) -> &str {
    let name = define.split(' ').next().unwrap_or_default();
    match name.splitn(3, '_').collect::<Vec<_>>().as_slice() {
        ["VELRO", "OK"] => "E",
        ["VELRO", kind, _] => kind,
        _ => "method",
    }
}

/// A comment, wrapped.
fn comment_lines(indent: &str, text: &str) -> Vec<String> {
    const WIDTH: usize = 116;
    let mut lines = vec![format!("{indent}/*")];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        if lines[last].len() + 1 + word.len() + 3 > WIDTH {
            lines.push(format!("{indent} * {word}"));
        } else {
            lines[last] = format!("{} {word}", lines[last]);
        }
    }
    if let Some(last) = lines.last_mut() {
        last.push_str(" */");
    }
    lines
}
