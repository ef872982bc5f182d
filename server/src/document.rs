//! TOML that people write, read with line numbers: every fault is collected, each with its line and a remedy.
//!
//! Used for `velro.toml` and `providers.toml`. A [`Section`] remembers which keys were asked for; what is left over in
//! the file is an unknown key, reported with the nearest known one. Nothing here touches the file system.

use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use toml::Spanned;
use toml::de::DeTable;
pub use toml::de::DeValue;

/// Something wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.line, self.what, self.remedy)
    }
}

/// A value with the line it stands on.
#[derive(Debug, Clone, PartialEq)]
pub struct Spot<T> {
    /// The value.
    pub value: T,
    /// Line, from 1.
    pub line: usize,
}

/// Where faults are collected while a document is read.
pub struct Faults {
    line_starts: Vec<usize>,
    list: RefCell<Vec<Fault>>,
}

impl Faults {
    /// An empty list for a text.
    pub fn new(text: &str) -> Self {
        let line_starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Faults {
            line_starts,
            list: RefCell::default(),
        }
    }

    /// The line of a byte offset.
    pub fn line_at(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= offset)
    }

    /// Notes a fault.
    pub fn push(&self, line: usize, what: impl Into<String>, remedy: impl Into<String>) {
        self.list.borrow_mut().push(Fault {
            line,
            what: what.into(),
            remedy: remedy.into(),
        });
    }

    /// True when nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.borrow().is_empty()
    }

    /// All faults in the order of the file, each once.
    pub fn into_sorted(self) -> Vec<Fault> {
        let mut list = self.list.into_inner();
        list.sort();
        list.dedup();
        list
    }
}

/// Parses a document; syntax faults are noted and what could be read is returned.
pub fn parse<'t>(text: &'t str, faults: &Faults) -> Spanned<DeTable<'t>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let line = faults.line_at(error.span().map_or(0, |span| span.start));
        faults.push(
            line,
            format!("not valid TOML: {}", error.message().trim()),
            "correct the syntax",
        );
    }
    root
}

/// The known name that a wrong one was probably meant to be.
pub fn nearest<'k>(wrong: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    known
        .into_iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(wrong, name), name))
        .filter(|(likeness, _)| *likeness >= 0.55)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// `` `a`, `b` or `c` ``, for messages.
pub fn one_of<T: fmt::Display>(names: &[T]) -> String {
    match names {
        [] => "nothing".into(),
        [only] => format!("`{only}`"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|n| format!("`{n}`")).collect();
            format!("{} or `{last}`", first.join(", "))
        }
    }
}

/// An entry of a table whose names are free.
pub struct Entry<'a, 't> {
    /// Its name.
    pub name: &'a str,
    /// Its value.
    pub value: &'a DeValue<'t>,
    /// The line of its name, from 1.
    pub line: usize,
}

/// A table being read.
pub struct Section<'a, 't> {
    /// How messages call it, for example `[providers.fal]`.
    pub label: String,
    /// The line it begins on.
    pub line: usize,
    faults: &'a Faults,
    table: &'a DeTable<'t>,
    asked: BTreeSet<&'static str>,
}

impl<'a, 't> Section<'a, 't> {
    /// Begins to read a table.
    pub fn new(label: impl Into<String>, line: usize, table: &'a DeTable<'t>, faults: &'a Faults) -> Self {
        Section {
            label: label.into(),
            line,
            faults,
            table,
            asked: BTreeSet::new(),
        }
    }

    /// Notes a fault on a line.
    pub fn fault(&self, line: usize, what: impl fmt::Display, remedy: impl Into<String>) {
        self.faults.push(line, format!("{}: {what}", self.label), remedy);
    }

    /// A value as written, if the key is there.
    pub fn raw(&mut self, key: &'static str) -> Option<Spot<&'a DeValue<'t>>> {
        self.asked.insert(key);
        let value = self.table.get(key)?;
        Some(Spot {
            line: self.faults.line_at(value.span().start),
            value: value.get_ref(),
        })
    }

    /// The line a key stands on; the line of the table when it is not there.
    pub fn line_of(&self, key: &str) -> usize {
        let entry = self.table.get_key_value(key);
        entry.map_or(self.line, |(key, _)| self.faults.line_at(key.span().start))
    }

    /// True when a key is there, whatever its value.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Notes that a key is missing.
    pub fn missing(&self, key: &str, expected: &str) {
        self.fault(
            self.line,
            format_args!("`{key}` is missing"),
            format!("add `{key}` = {expected}"),
        );
    }

    fn wrong_type(&self, key: &str, spot: &Spot<&DeValue<'_>>, expected: &str) {
        let what = format!("`{key}` must be {expected}, not {}", article(spot.value.type_str()));
        self.fault(spot.line, what, format!("write {expected}"));
    }

    fn typed<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        convert: impl FnOnce(&'a DeValue<'t>) -> Option<T>,
    ) -> Option<Spot<T>> {
        let spot = self.raw(key)?;
        match convert(spot.value) {
            Some(value) => Some(Spot { value, line: spot.line }),
            None => {
                self.wrong_type(key, &spot, expected);
                None
            }
        }
    }

    /// A text.
    pub fn text(&mut self, key: &'static str) -> Option<Spot<&'a str>> {
        self.typed(key, "a text in quotes", |v| v.as_str())
    }

    /// A text that must be there and must not be blank; `expected` is an example for the remedy.
    pub fn required_text(&mut self, key: &'static str, expected: &str) -> Option<Spot<&'a str>> {
        if self.raw(key).is_none() {
            self.missing(key, expected);
            return None;
        }
        let spot = self.text(key)?;
        if spot.value.trim().is_empty() {
            self.fault(
                spot.line,
                format_args!("`{key}` is empty"),
                format!("write for example {expected}"),
            );
            return None;
        }
        Some(spot)
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: &'static str) -> Option<Spot<bool>> {
        self.typed(key, "`true` or `false`", |v| v.as_bool())
    }

    /// A whole number within a range.
    pub fn integer(&mut self, key: &'static str, range: RangeInclusive<i64>) -> Option<Spot<i64>> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let spot = self.typed(key, &expected, integer)?;
        if range.contains(&spot.value) {
            return Some(spot);
        }
        let what = format!("`{key}` is {}", spot.value);
        self.fault(spot.line, what, format!("write {expected}"));
        None
    }

    /// A number, whole or not.
    pub fn number(&mut self, key: &'static str) -> Option<Spot<f64>> {
        self.typed(key, "a finite number", |v| json(v)?.as_f64())
    }

    /// One of a set of names.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&'static str, T)]) -> Option<Spot<T>> {
        let spot = self.text(key)?;
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == spot.value) {
            return Some(Spot {
                value: *value,
                line: spot.line,
            });
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let what = format!("`{key}` is `{}`", spot.value);
        self.fault(spot.line, what, format!("write {}", one_of(&names)));
        None
    }

    /// A list of texts.
    pub fn texts(&mut self, key: &'static str) -> Option<Spot<Vec<String>>> {
        self.typed(key, "a list of texts", |v| {
            let items = v.as_array()?.iter();
            items.map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
        })
    }

    /// Any value, as JSON.
    pub fn json(&mut self, key: &'static str) -> Option<Spot<Value>> {
        self.typed(key, "a value that JSON has (no dates, no `inf`, no `nan`)", json)
    }

    /// A table, as JSON.
    pub fn json_table(&mut self, key: &'static str) -> Option<Spot<Map<String, Value>>> {
        self.typed(key, "a table of values that JSON has", |v| match json(v)? {
            Value::Object(map) => Some(map),
            _ => None,
        })
    }

    /// A table to be read on.
    pub fn section(&mut self, key: &'static str, label: impl Into<String>) -> Option<Section<'a, 't>> {
        let spot = self.typed(key, "a table", |v| v.as_table())?;
        Some(Section::new(label, spot.line, spot.value, self.faults))
    }

    /// The named tables below a key (`[providers.NAME]`), in the order of the file.
    pub fn named_sections(
        &mut self,
        key: &'static str,
        label: impl Fn(&str) -> String,
    ) -> Vec<(&'a str, Section<'a, 't>)> {
        let Some(spot) = self.typed(key, "a table of tables", |v| v.as_table()) else {
            return Vec::new();
        };
        let mut entries: Vec<_> = spot.value.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let mut sections = Vec::new();
        for (name, value) in entries {
            let line = self.faults.line_at(name.span().start);
            let name: &str = name.get_ref();
            match value.get_ref().as_table() {
                Some(table) => sections.push((name, Section::new(label(name), line, table, self.faults))),
                None => self.faults.push(
                    line,
                    format!(
                        "`{key}.{name}` must be a table, not {}",
                        article(value.get_ref().type_str())
                    ),
                    format!("write it as [{key}.{name}]"),
                ),
            }
        }
        sections
    }

    /// The entries of a table whose names are free, in the order of the file; `None` when the key is not there.
    pub fn entries(&mut self, key: &'static str) -> Option<Vec<Entry<'a, 't>>> {
        let table = self.typed(key, "a table", |v| v.as_table())?.value;
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let entries = entries.into_iter().map(|(name, value)| Entry {
            name: name.get_ref(),
            value: value.get_ref(),
            line: self.faults.line_at(name.span().start),
        });
        Some(entries.collect())
    }

    /// The line of a byte offset of the file, for values that are read by hand.
    pub fn line_at(&self, offset: usize) -> usize {
        self.faults.line_at(offset)
    }

    /// A table that has been found, to be read on.
    pub fn below(&self, label: impl Into<String>, spot: &Spot<&'a DeValue<'t>>) -> Option<Section<'a, 't>> {
        let table = spot.value.as_table()?;
        Some(Section::new(label, spot.line, table, self.faults))
    }

    /// The tables of a list (`[[models]]`), in the order of the file.
    pub fn listed_sections(&mut self, key: &'static str) -> Vec<Section<'a, 't>> {
        let Some(spot) = self.typed(key, "a list of tables", |v| v.as_array()) else {
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in spot.value.iter() {
            let line = self.faults.line_at(item.span().start);
            match item.get_ref().as_table() {
                Some(table) => sections.push(Section::new(format!("[[{key}]]"), line, table, self.faults)),
                None => self.faults.push(
                    line,
                    format!("`{key}` must hold tables only"),
                    format!("write each as [[{key}]]"),
                ),
            }
        }
        sections
    }

    /// Ends the reading: what was not asked for is unknown.
    pub fn finish(self) {
        for (key, _) in self.table.iter() {
            if self.asked.contains(key.get_ref().as_ref()) {
                continue;
            }
            let remedy = match nearest(key.get_ref(), self.asked.iter().copied()) {
                Some(name) => format!("did you mean `{name}`?"),
                None => {
                    let known: Vec<&str> = self.asked.iter().copied().collect();
                    format!("remove it; known here: {}", known.join(", "))
                }
            };
            let line = self.faults.line_at(key.span().start);
            self.fault(line, format_args!("`{}` is not a known key", key.get_ref()), remedy);
        }
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A TOML value as JSON; `None` for what JSON does not have.
pub fn json(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(_) => Value::from(integer(value)?),
        DeValue::Float(float) => Value::from(float.as_str().parse::<f64>().ok().filter(|f| f.is_finite())?),
        DeValue::Boolean(flag) => Value::from(*flag),
        DeValue::Datetime(_) => return None,
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect::<Option<_>>()?,
        DeValue::Table(table) => {
            let entries = table.iter();
            let entries = entries.map(|(key, item)| Some((key.get_ref().to_string(), json(item.get_ref())?)));
            Value::Object(entries.collect::<Option<_>>()?)
        }
    })
}

fn article(type_name: &str) -> String {
    let an = type_name.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {type_name}", if an { "an" } else { "a" })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn faults_of(text: &str, read: impl FnOnce(&mut Section<'_, '_>)) -> Vec<String> {
        let faults = Faults::new(text);
        let root = parse(text, &faults);
        let mut section = Section::new("file", 1, root.get_ref(), &faults);
        read(&mut section);
        section.finish();
        faults.into_sorted().iter().map(Fault::to_string).collect()
    }

    #[test]
    fn every_fault_has_its_line() {
        let text = "a = 1\n\nb = \"x\"\nport = 99999\ncolour = true\n";
        let found = faults_of(text, |s| {
            assert_eq!(s.integer("a", 0..=5).unwrap().value, 1);
            s.boolean("b");
            s.integer("port", 1..=65535);
            s.text("color");
            s.required_text("name", "\"x\"");
        });
        assert_eq!(
            found,
            [
                "1: file: `name` is missing; add `name` = \"x\"",
                "3: file: `b` must be `true` or `false`, not a string; write `true` or `false`",
                "4: file: `port` is 99999; write a whole number from 1 to 65535",
                "5: file: `colour` is not a known key; did you mean `color`?",
            ]
        );
    }

    #[test]
    fn syntax_faults_are_all_found() {
        let found = faults_of("a = \nb = 1\nc = [1,\n", |s| {
            s.raw("a");
            s.raw("b");
            s.raw("c");
        });
        assert!(found.len() >= 2, "{found:?}");
        assert!(found[0].starts_with("1: not valid TOML"), "{found:?}");
    }

    #[test]
    fn sections_come_in_the_order_of_the_file() {
        let text = "[p.zeta]\nx = 1\n[p.alpha]\nx = 2\n";
        let faults = Faults::new(text);
        let root = parse(text, &faults);
        let mut section = Section::new("file", 1, root.get_ref(), &faults);
        let sections = section.named_sections("p", |n| format!("[p.{n}]"));
        let names: Vec<_> = sections.iter().map(|(name, s)| (*name, s.line)).collect();
        assert_eq!(names, [("zeta", 1), ("alpha", 3)]);
        assert!(faults.is_empty());
    }

    #[test]
    fn what_json_does_not_have_is_refused() {
        for text in ["a = inf", "a = nan", "a = 2026-01-01", "a = [1, { b = inf }]"] {
            let found = faults_of(text, |s| {
                s.json("a");
            });
            assert_eq!(found.len(), 1, "{text}: {found:?}");
        }
    }
}
