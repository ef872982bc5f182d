//! The checks: each takes a file and gives what is wrong in it, as `path:line: what, and why not`.

use super::source::{Kind, Source};

/// Longest file, in lines. The aim is 500.
pub const MOST_LINES: usize = 600;

/// What a module of `server/src` may use of the others.
pub struct Layer {
    pub module: &'static str,
    /// Names of modules with spaces between, or `*`.
    pub uses: &'static str,
}

/// Where a library, or a part of the standard one, may be used.
pub struct Confined {
    /// The path as it is written, for example `salvo` or `std::env`.
    pub path: &'static str,
    /// Beginnings of the paths of files that may.
    pub within: &'static [&'static str],
    pub because: &'static str,
}

fn at(source: &Source, token: usize, what: &str) -> String {
    let line = source.tokens.get(token).map_or(0, |token| token.line);
    format!("{}:{line}: {what}", source.path)
}

/// Uses of other modules of the server that the layers do not allow, and modules that no layer names.
pub fn dependencies(source: &Source, layers: &[Layer]) -> Vec<String> {
    let module = source.module();
    let Some(own) = module.first() else {
        return Vec::new(); // lib.rs only lists the modules
    };
    let Some(layer) = layers.iter().find(|layer| layer.module == own) else {
        return vec![at(
            source,
            0,
            &format!("module `{own}` is in no layer; name it in tests/tests/tidy"),
        )];
    };
    let mut faults = Vec::new();
    for (token, used) in uses(source) {
        let known = layers.iter().any(|layer| layer.module == used);
        let allowed = layer.uses.split_whitespace().any(|name| name == "*" || name == used);
        if used == "*" {
            faults.push(at(source, token, "a glob of the crate root hides what is used"));
        } else if known && used != *own && !allowed {
            faults.push(at(source, token, &format!("`{own}` may not use `{used}`")));
        }
    }
    faults
}

/// First names of all paths from the crate root, with the token where each begins. Tests may reach anywhere.
fn uses(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (start, token) in source.tokens.iter().enumerate() {
        if token.in_test || !source.begins_path(start) {
            continue;
        }
        let mut next = start;
        let mut base = source.module();
        base.extend(token.inline.iter().cloned());
        match source.ident(start) {
            Some("crate") => base.clear(),
            Some("velro") if source.path == "server/src/main.rs" => base.clear(),
            Some("super") => {
                base.pop();
                while source.is_path_separator(next + 1) && source.ident(next + 3) == Some("super") {
                    base.pop();
                    next += 3;
                }
            }
            _ => continue,
        }
        if base.is_empty() && source.is_path_separator(next + 1) {
            found.extend(names_at(source, next + 3).into_iter().map(|name| (start, name)));
        }
    }
    found
}

/// The names at this place of a path: one, or several in braces.
fn names_at(source: &Source, at: usize) -> Vec<String> {
    if source.is(at, &Kind::Punct('*')) {
        return vec!["*".to_owned()];
    }
    if !source.is(at, &Kind::Open('{')) {
        return source.ident(at).map(str::to_owned).into_iter().collect();
    }
    let mut names = Vec::new();
    let mut depth = 1;
    let mut token = at + 1;
    let mut is_first = true;
    while depth > 0 && token < source.tokens.len() {
        match &source.tokens[token].kind {
            Kind::Open(_) => depth += 1,
            Kind::Close(_) => depth -= 1,
            Kind::Punct(',') if depth == 1 => is_first = true,
            Kind::Punct('*') if is_first => names.push("*".to_owned()),
            Kind::Ident(name) if is_first => {
                names.push(name.clone());
                is_first = false;
            }
            _ => {}
        }
        token += 1;
    }
    names
}

/// Uses of a library outside the files it is confined to. Tests beside the code may use it.
pub fn confinement(source: &Source, confined: &[Confined]) -> Vec<String> {
    let mut faults = Vec::new();
    for rule in confined {
        if rule.within.iter().any(|beginning| source.path.starts_with(beginning)) {
            continue;
        }
        for token in 0..source.tokens.len() {
            if !source.tokens[token].in_test && names_path(source, token, rule.path) {
                faults.push(at(source, token, &format!("`{}` here: {}", rule.path, rule.because)));
            }
        }
    }
    faults
}

/// True when the path `wanted` is written at `token`: spelled out, imported, in the braces of an import, or as an attribute.
fn names_path(source: &Source, token: usize, wanted: &str) -> bool {
    let mut parts = wanted.split("::");
    let first = parts.next();
    if source.ident(token) != first || !source.begins_path(token) {
        return false;
    }
    let Some(second) = parts.next() else {
        let imported = token >= 1 && matches!(source.ident(token - 1), Some("use" | "crate"));
        let attribute = token >= 2 && source.is(token - 1, &Kind::Open('[')) && source.is(token - 2, &Kind::Punct('#'));
        return source.is_path_separator(token + 1) || imported || attribute;
    };
    let is_macro = source.is(token + 4, &Kind::Punct('!')); // `std::env!` is not `std::env`
    source.is_path_separator(token + 1) && !is_macro && names_at(source, token + 3).iter().any(|name| name == second)
}

/// Calls of a system clock; the monotonic one is free.
pub fn wall_clock(source: &Source) -> Vec<String> {
    let reads = |token: &usize| {
        matches!(
            source.ident(*token),
            Some("SystemTime" | "OffsetDateTime" | "UtcDateTime" | "Utc" | "Local")
        ) && source.is_path_separator(token + 1)
            && source.ident(token + 3).is_some_and(|name| name.starts_with("now"))
            && !source.tokens[*token].in_test
    };
    (0..source.tokens.len())
        .filter(reads)
        .map(|token| {
            at(
                source,
                token,
                "the system clock is read in clock.rs only, so that stored times have one source",
            )
        })
        .collect()
}

/// `unsafe`, in tests too.
pub fn unsafe_code(source: &Source) -> Vec<String> {
    (0..source.tokens.len())
        .filter(|token| source.ident(*token) == Some("unsafe"))
        .map(|token| at(source, token, "`unsafe` belongs behind the plugin boundary only"))
        .collect()
}

/// Work that is not done and tests that are not run.
pub fn unfinished(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    for token in 0..source.tokens.len() {
        let is_macro = source.is(token + 1, &Kind::Punct('!'));
        match source.ident(token) {
            Some(name @ ("todo" | "unimplemented")) if is_macro => {
                faults.push(at(source, token, &format!("`{name}!`: what is merged is whole")));
            }
            Some("ignore") if is_in_attribute(source, token) => {
                faults.push(at(
                    source,
                    token,
                    "`#[ignore]`: a test that does not run proves nothing",
                ));
            }
            _ => {}
        }
    }
    for (number, line) in source.text.lines().enumerate() {
        let text = line.trim_start();
        let is_doc = text.starts_with("///") || text.starts_with("//!");
        if is_doc && text.contains("```") && text.contains("ignore") {
            faults.push(format!(
                "{}:{}: an example that is not compiled rots",
                source.path,
                number + 1
            ));
        }
    }
    faults
}

/// True when the nearest bracket around `token` is that of an attribute.
fn is_in_attribute(source: &Source, token: usize) -> bool {
    let mut depth = 0;
    for before in (0..token).rev() {
        match source.tokens[before].kind {
            Kind::Close(_) => depth += 1,
            Kind::Open('[') if depth == 0 => {
                let hash = |at: usize| source.is(at, &Kind::Punct('#'));
                return before >= 1 && (hash(before - 1) || (before >= 2 && hash(before - 2)));
            }
            Kind::Open('{') if depth == 0 => return false,
            Kind::Open(_) if depth > 0 => depth -= 1,
            _ => {}
        }
    }
    false
}

/// A file says what it is for, and is short enough to be read.
pub fn shape(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    // The name of a file of tests beside the code says enough.
    if !source.text.starts_with("//!") && !source.is_test_beside_code() {
        faults.push(at(
            source,
            0,
            "the file does not open with `//!`: what it is responsible for, and what must hold",
        ));
    }
    let lines = source.text.lines().count();
    if lines > MOST_LINES {
        faults.push(format!(
            "{}:{lines}: longer than {MOST_LINES} lines; split it by responsibility",
            source.path
        ));
    }
    faults
}
