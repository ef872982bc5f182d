//! Rust files as lists of tokens: comments and texts cannot be mistaken for code, and every token knows its line and
//! whether it is compiled into the server or only into its tests.

use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// What a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A name or keyword.
    Ident(String),
    /// One character of punctuation.
    Punct(char),
    /// `(`, `[` or `{`.
    Open(char),
    /// `)`, `]` or `}`.
    Close(char),
    /// A number, a text or a lifetime's name; nothing here looks at it.
    Other,
}

/// A token with its place.
#[derive(Debug, Clone)]
pub struct Token {
    pub kind: Kind,
    /// Counted from 1.
    pub line: usize,
    /// Under `#[cfg(test)]`, or in a file of tests.
    pub in_test: bool,
    /// Inline `mod name { }` blocks around it.
    pub inline: Vec<String>,
}

/// A file.
#[derive(Debug)]
pub struct Source {
    /// From the root of the repository, with `/`.
    pub path: String,
    pub text: String,
    pub tokens: Vec<Token>,
}

impl Source {
    /// Reads a text as Rust.
    pub fn parse(path: &str, text: &str) -> Result<Source, String> {
        let stream: TokenStream = text.parse().map_err(|error| format!("{path}: {error}"))?;
        let mut tokens = Vec::new();
        let in_test = is_test_file(path);
        flatten(stream, in_test, &mut Vec::new(), &mut tokens);
        Ok(Source {
            path: path.to_owned(),
            text: text.to_owned(),
            tokens,
        })
    }

    /// Every `.rs` file below `folder`, except build folders and what a package manager installed.
    pub fn below(root: &Path, folder: &str) -> Result<Vec<Source>, String> {
        let mut sources = Vec::new();
        let mut folders = vec![root.join(folder)];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            for entry in entries {
                let path = entry.map_err(|error| error.to_string())?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if path.is_dir() && !matches!(name.as_str(), "target" | "node_modules" | ".venv") {
                    folders.push(path);
                } else if name.ends_with(".rs") {
                    let text =
                        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                    let relative = path.strip_prefix(root).map_err(|error| error.to_string())?;
                    sources.push(Source::parse(&relative.to_string_lossy(), &text)?);
                }
            }
        }
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(sources)
    }

    /// The module path below the crate: `server/src/http/input.rs` is `["http", "input"]`. Empty outside `server/src`.
    pub fn module(&self) -> Vec<String> {
        let Some(inside) = self.path.strip_prefix("server/src/") else {
            return Vec::new();
        };
        let mut parts: Vec<String> = inside.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if matches!(parts.last().map(String::as_str), Some("mod" | "lib")) {
            parts.pop();
        }
        parts
    }

    /// True for `tests.rs`, `call_tests.rs` and what lies in a folder `tests` beside the code.
    pub fn is_test_beside_code(&self) -> bool {
        self.path.contains("/src/") && is_test_file(&self.path)
    }

    /// The name at `at`, if there is one.
    pub fn ident(&self, at: usize) -> Option<&str> {
        match &self.tokens.get(at)?.kind {
            Kind::Ident(name) => Some(name),
            _ => None,
        }
    }

    /// True when the token at `at` is this one.
    pub fn is(&self, at: usize, kind: &Kind) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind == *kind)
    }

    /// True when a `::` begins at `at`.
    pub fn is_path_separator(&self, at: usize) -> bool {
        self.is(at, &Kind::Punct(':')) && self.is(at + 1, &Kind::Punct(':'))
    }

    /// True when the name at `at` is the first of its path.
    pub fn begins_path(&self, at: usize) -> bool {
        let follows_separator = at >= 2 && self.is_path_separator(at - 2);
        let follows_dot = at >= 1 && self.is(at - 1, &Kind::Punct('.'));
        // `::name` with nothing before it is a path from the root.
        let from_root = follows_separator
            && !matches!(
                at.checked_sub(3)
                    .and_then(|before| self.tokens.get(before))
                    .map(|token| &token.kind),
                Some(Kind::Ident(_) | Kind::Punct('>'))
            );
        (!follows_separator || from_root) && !follows_dot
    }
}

fn is_test_file(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("_tests.rs")
}

/// Appends the tokens of `stream`, groups and all.
fn flatten(stream: TokenStream, in_test: bool, inline: &mut Vec<String>, tokens: &mut Vec<Token>) {
    // Set by `#[cfg(test)]`, until the item it belongs to ends.
    let mut item_is_test = false;
    let mut before: [Option<String>; 2] = [None, None];
    for tree in stream {
        let line = tree.span().start().line;
        let push = |kind: Kind, line: usize, in_test: bool, inline: &[String], tokens: &mut Vec<Token>| {
            tokens.push(Token {
                kind,
                line,
                in_test,
                inline: inline.to_vec(),
            });
        };
        match &tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ('(', ')'),
                    Delimiter::Bracket => ('[', ']'),
                    Delimiter::Brace => ('{', '}'),
                    Delimiter::None => (' ', ' '),
                };
                let is_attribute = open == '[' && before[1].as_deref() == Some("#");
                if is_attribute && group.stream().to_string().replace(' ', "") == "cfg(test)" {
                    item_is_test = true;
                }
                let test = in_test || item_is_test;
                push(Kind::Open(open), line, test, inline, tokens);
                let module = match &before {
                    [Some(keyword), Some(name)] if keyword == "mod" && open == '{' => Some(name.clone()),
                    _ => None,
                };
                inline.extend(module.clone());
                flatten(group.stream(), test, inline, tokens);
                if module.is_some() {
                    inline.pop();
                }
                push(
                    Kind::Close(close),
                    group.span_close().start().line,
                    test,
                    inline,
                    tokens,
                );
                if open == '{' {
                    item_is_test = false;
                }
            }
            TokenTree::Ident(ident) => {
                push(
                    Kind::Ident(ident.to_string()),
                    line,
                    in_test || item_is_test,
                    inline,
                    tokens,
                );
            }
            TokenTree::Punct(punct) => {
                push(
                    Kind::Punct(punct.as_char()),
                    line,
                    in_test || item_is_test,
                    inline,
                    tokens,
                );
                if punct.as_char() == ';' {
                    item_is_test = false;
                }
            }
            TokenTree::Literal(_) => push(Kind::Other, line, in_test || item_is_test, inline, tokens),
        }
        let [_, last] = before;
        before = [
            last,
            match &tree {
                TokenTree::Ident(ident) => Some(ident.to_string()),
                TokenTree::Punct(punct) => Some(punct.to_string()),
                _ => None,
            },
        ];
    }
}
