//! Where in a YAML text each setting stands: paths such as `sinks[0].webhook.url` to line and column,
//! and back.
//!
//! The settings' own types stay free of positions; a second look at the text finds them when there is
//! something to tell.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A line and a column, both counted from 1; 0 if unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

impl From<serde_saphyr::Location> for Place {
    fn from(location: serde_saphyr::Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

/// One setting of a text.
#[derive(Debug)]
struct Setting {
    path: String,
    /// Where its key begins; for an item of a list, where it does.
    key: Place,
    /// Where its value begins.
    value: Place,
}

/// Every setting of a text, in its order.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<Setting>);

impl Places {
    /// The places of `text`; none if it is no YAML.
    pub(super) fn of(text: &str) -> Self {
        let options = serde_saphyr::options! { with_snippet: false };
        let mut places = Self::default();
        if let Ok(root) = serde_saphyr::from_str_with_options::<Spanned<Node>>(text, options) {
            places.collect("", root.referenced.into(), &root);
        }
        places
    }

    /// Where `path` stands, or the nearest setting that holds it.
    pub(super) fn of_path(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some(setting) = self.0.iter().find(|setting| setting.path == path) {
                return setting.value;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = path.get(..end).unwrap_or_default(),
                None if path.is_empty() => return Place::default(),
                None => path = "",
            }
        }
    }

    /// The last setting whose key or value begins at or before `place`; "the file" if there is none.
    pub(super) fn path_at(&self, place: Place) -> &str {
        let begin = |setting: &&Setting| {
            let begins = [setting.key, setting.value].into_iter().filter(|begin| *begin <= place);
            begins.max()
        };
        match self.0.iter().filter(|setting| setting.key <= place).max_by_key(begin) {
            Some(setting) if !setting.path.is_empty() => &setting.path,
            _ => "the file",
        }
    }

    /// An error of the YAML reader for `text`: its place, the nearest setting, and what is wrong. The text is
    /// never quoted: read it without snippets.
    pub(super) fn of_error(text: &str, error: &serde_saphyr::Error) -> (Place, String, String) {
        let place = error.location().map_or_else(Place::default, Place::from);
        let message = error.without_snippet().to_string();
        // The place is told once, in front.
        let prefix = format!("line {} column {}: ", place.line, place.column);
        let problem = message.strip_prefix(&format!("error: {prefix}")).unwrap_or(&message);
        let suffix = format!(" at line {}, column {}", place.line, place.column);
        let problem = problem.strip_suffix(&suffix).unwrap_or(problem);
        (place, Self::of(text).path_at(place).to_owned(), problem.to_owned())
    }

    fn collect(&mut self, path: &str, key: Place, node: &Spanned<Node>) {
        self.0.push(Setting { path: path.to_owned(), key, value: node.referenced.into() });
        match &node.value {
            Node::Leaf => {}
            Node::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.collect(&format!("{path}[{index}]"), item.referenced.into(), item);
                }
            }
            Node::Map(entries) => {
                for (key, value) in entries {
                    let dot = if path.is_empty() { "" } else { "." };
                    let path = format!("{path}{dot}{}", key.value);
                    self.collect(&path, key.referenced.into(), value);
                }
            }
        }
    }
}

/// The shape of a text: its keys and nothing of its values.
#[derive(Debug)]
enum Node {
    Leaf,
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Shape)
    }
}

struct Shape;

impl<'de> Visitor<'de> for Shape {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "schema: a\nsinks:\n  - name: one\n    retry: {first: 1s, attempts: 3}\n";

    #[test]
    fn every_setting_has_a_place() {
        let places = Places::of(TEXT);
        let at = |path| {
            let Place { line, column } = places.of_path(path);
            (line, column)
        };
        assert_eq!(at("schema"), (1, 9));
        assert_eq!(at("sinks[0].name"), (3, 11));
        assert_eq!(at("sinks[0].retry.attempts"), (4, 34));
    }

    #[test]
    fn a_missing_setting_has_the_place_of_what_holds_it() {
        let places = Places::of(TEXT);
        assert_eq!(places.of_path("sinks[0].webhook.url"), places.of_path("sinks[0]"));
        assert_eq!(places.of_path("sinks[7].name"), places.of_path("sinks"));
    }

    #[test]
    fn a_place_has_the_setting_that_begins_before_it() {
        let places = Places::of(TEXT);
        assert_eq!(places.path_at(Place { line: 3, column: 12 }), "sinks[0].name");
        assert_eq!(places.path_at(Place { line: 4, column: 24 }), "sinks[0].retry.attempts");
        assert_eq!(Places::of("{").path_at(Place { line: 1, column: 1 }), "the file");
    }
}
