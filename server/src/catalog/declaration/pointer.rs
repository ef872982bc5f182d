//! JSON pointers (RFC 6901) with one addition: the segment `*` is every element of a list.

use serde_json::Value;
use std::fmt;

/// Most places one pointer is expanded to; answers come from outside.
const MOST_PLACES: usize = 256;

/// A checked JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pointer {
    text: String,
    /// Unescaped.
    segments: Vec<String>,
}

impl Pointer {
    /// Reads a pointer; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Pointer, &'static str> {
        if text.is_empty() {
            return Ok(Pointer::default());
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err("does not begin with `/`");
        };
        let mut segments = Vec::new();
        for segment in rest.split('/') {
            let mut escapes = segment.split('~').skip(1);
            if escapes.any(|after| !after.starts_with(['0', '1'])) {
                return Err("has a `~` that is neither `~0` nor `~1`");
            }
            segments.push(segment.replace("~1", "/").replace("~0", "~"));
        }
        Ok(Pointer {
            text: text.to_owned(),
            segments,
        })
    }

    /// The same place below another one.
    #[must_use]
    pub fn below(&self, prefix: &Pointer) -> Pointer {
        Pointer {
            text: format!("{}{}", prefix.text, self.text),
            segments: prefix.segments.iter().chain(&self.segments).cloned().collect(),
        }
    }

    /// The pointer as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True when it may stand for several places.
    pub fn has_star(&self) -> bool {
        self.segments.iter().any(|segment| segment == "*")
    }

    /// The name of the place: its last segment.
    pub fn name(&self) -> &str {
        self.segments.last().map_or("", String::as_str)
    }

    /// The first value at this place that is not `null`.
    pub fn get<'v>(&self, document: &'v Value) -> Option<&'v Value> {
        let mut all = self.all(document).into_iter().map(|(_, value)| value);
        all.find(|value| !value.is_null())
    }

    /// Every value at this place, each with a pointer of its own that has no star. An object's member that is really
    /// called `*` is found as such.
    pub fn all<'v>(&self, document: &'v Value) -> Vec<(String, &'v Value)> {
        let mut found = vec![(String::new(), document)];
        for segment in &self.segments {
            let mut next = Vec::new();
            for (at, value) in found {
                match value {
                    Value::Array(items) if segment == "*" => {
                        let items = items.iter().enumerate();
                        next.extend(items.take(MOST_PLACES).map(|(i, item)| (format!("{at}/{i}"), item)));
                    }
                    Value::Array(items) => {
                        // RFC 6901: no leading zeros, no sign.
                        let index = segment.parse::<usize>().ok().filter(|i| i.to_string() == *segment);
                        let item = index.and_then(|i| items.get(i));
                        next.extend(item.map(|item| (format!("{at}/{segment}"), item)));
                    }
                    Value::Object(members) => {
                        let member = members.get(segment);
                        let escaped = || segment.replace('~', "~0").replace('/', "~1");
                        next.extend(member.map(|member| (format!("{at}/{}", escaped()), member)));
                    }
                    _ => {}
                }
                next.truncate(MOST_PLACES);
            }
            found = next;
        }
        found
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn places_are_found() {
        let document = json!({"a": [{"b": 1}, {"c": 2}, {"b": null}, {"b": 3}], "x/y": {"~": true}, "*": 7});
        let all = |text: &str| {
            let found = Pointer::parse(text).unwrap().all(&document);
            found
                .into_iter()
                .map(|(at, value)| (at, value.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(all("/a/0/b"), [("/a/0/b".into(), json!(1))]);
        assert_eq!(
            all("/a/*/b"),
            [
                ("/a/0/b".into(), json!(1)),
                ("/a/2/b".into(), json!(null)),
                ("/a/3/b".into(), json!(3))
            ]
        );
        assert_eq!(all("/x~1y/~0"), [("/x~1y/~0".into(), json!(true))]);
        assert_eq!(all("/*"), [("/*".into(), json!(7))]);
        assert_eq!(all(""), [(String::new(), document.clone())]);
        for nothing in ["/a/00/b", "/a/9", "/a/b", "/no", "/x~1y/~0/z"] {
            assert_eq!(all(nothing), [], "{nothing}");
        }
        assert_eq!(Pointer::parse("/a/*/b").unwrap().get(&document), Some(&json!(1)));
        let below = Pointer::parse("/b").unwrap().below(&Pointer::parse("/a/3").unwrap());
        assert_eq!((below.as_str(), below.get(&document)), ("/a/3/b", Some(&json!(3))));
    }

    #[test]
    fn malformed_pointers_are_refused() {
        assert_eq!(Pointer::parse("id"), Err("does not begin with `/`"));
        for bad in ["/a~", "/a~2b", "/~~0"] {
            assert!(Pointer::parse(bad).unwrap_err().contains("`~`"), "{bad}");
        }
    }

    proptest! {
        /// Without a star it is serde's pointer.
        #[test]
        fn agrees_with_serde(text in "(/[ab01~]{0,3}){0,4}") {
            let document = json!({"a": [[1, {"b": 2}], {"0": 3}], "b": {"a": {"": 4}}, "": 5, "~": 6});
            if let Ok(pointer) = Pointer::parse(&text) {
                let found = pointer.all(&document);
                prop_assert_eq!(found.first().map(|(_, value)| *value), document.pointer(&text));
                prop_assert!(found.iter().all(|(at, value)| document.pointer(at) == Some(*value)));
            }
        }
    }
}
