//! Reads values out of a TOML table, and remembers which keys it was asked for.
//!
//! A missing or wrong value is noted with its place and answered `None`, so that the caller goes on and finds the rest;
//! a key that nobody asked for is an unknown one.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::{Deref, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Faults, Span};
use crate::names::nearest;
use crate::units::{format_duration_ms, format_size, parse_duration_ms, parse_size};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Located<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

impl<T> Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Located<T> {
    pub(crate) fn map<U>(self, f: impl FnOnce(T) -> U) -> Located<U> {
        Located {
            value: f(self.value),
            span: self.span,
        }
    }
}

/// One table while it is read.
pub(crate) struct Reader<'a, 't> {
    faults: &'a Faults<'t>,
    table: &'a DeTable<'a>,
    /// How messages name it, such as `node.disk`; empty for the whole file.
    path: String,
    /// Where it begins, for what is missing in it.
    pub(crate) span: Span,
    known: Vec<&'static str>,
}

impl<'a, 't> Reader<'a, 't> {
    pub(crate) fn new(
        faults: &'a Faults<'t>,
        table: &'a DeTable<'a>,
        path: &str,
        span: Span,
    ) -> Self {
        Self {
            faults,
            table,
            path: path.to_owned(),
            span,
            known: Vec::new(),
        }
    }

    /// How messages name a key of this table.
    pub(crate) fn name(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The value of a key, if it is there.
    pub(crate) fn item(&mut self, key: &'static str) -> Option<Item<'a, 't>> {
        self.known.push(key);
        let value = self.table.get(key)?;
        Some(Item {
            faults: self.faults,
            name: self.name(key),
            value,
        })
    }

    /// Where the key itself stands, for what is wrong with all of its value.
    pub(crate) fn key_span(&self, key: &str) -> Option<Span> {
        Some(self.table.get_key_value(key)?.0.span())
    }

    /// The value of a key that must be there.
    pub(crate) fn need(&mut self, key: &'static str, right: &str) -> Option<Item<'a, 't>> {
        let item = self.item(key);
        if item.is_none() {
            self.faults.add(
                &self.span,
                format!("`{}` is missing; {right}", self.name(key)),
            );
        }
        item
    }

    /// Notes every key that nobody asked for.
    pub(crate) fn end(self) {
        for (key, _) in self.table {
            let found: &str = key.get_ref();
            if self.known.contains(&found) {
                continue;
            }
            let whole = self.name(found);
            let message = match nearest(found, self.known.iter().copied()) {
                Some(meant) => format!("`{whole}` is no known key; did you mean `{meant}`?"),
                None => {
                    let mut known = self.known.clone();
                    known.sort_unstable();
                    let known: Vec<_> = known.iter().map(|key| format!("`{key}`")).collect();
                    format!(
                        "`{whole}` is no known key; known here: {}",
                        known.join(", ")
                    )
                }
            };
            self.faults.add(&key.span(), message);
        }
    }
}

/// One value while it is read.
pub(crate) struct Item<'a, 't> {
    faults: &'a Faults<'t>,
    name: String,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a, 't> Item<'a, 't> {
    pub(crate) fn span(&self) -> Span {
        self.value.span()
    }

    /// Notes that the value is not what it should be.
    fn wrong(&self, is_not: &str, right: impl Display) {
        let found = self.faults.found(&self.span());
        self.faults.add(
            &self.span(),
            format!("`{}` is {found}, which is not {is_not}; {right}", self.name),
        );
    }

    fn located<T>(&self, value: T) -> Located<T> {
        Located {
            value,
            span: self.span(),
        }
    }

    pub(crate) fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }

    pub(crate) fn is_array(&self) -> bool {
        self.value.get_ref().is_array()
    }

    pub(crate) fn is_word(&self, word: &str) -> bool {
        self.value.get_ref().as_str() == Some(word)
    }

    pub(crate) fn string(&self, right: &str) -> Option<Located<String>> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(self.located(text.clone().into_owned())),
            _ => {
                self.wrong("a text", right);
                None
            }
        }
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        let found = self.value.get_ref().as_bool();
        if found.is_none() {
            self.wrong("a switch", "write true or false");
        }
        found
    }

    pub(crate) fn integer(&self, range: RangeInclusive<u32>) -> Option<Located<u32>> {
        let parsed = match self.value.get_ref() {
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => {
                self.wrong(
                    "a number",
                    format!("from {} to {} would be right", range.start(), range.end()),
                );
                return None;
            }
        };
        match parsed.and_then(|number| u32::try_from(number).ok()) {
            Some(number) if range.contains(&number) => Some(self.located(number)),
            _ => {
                self.wrong(
                    "in range",
                    format!("from {} to {} would be right", range.start(), range.end()),
                );
                None
            }
        }
    }

    /// A port that clients or peers can be told; 0 is for the command line only.
    pub(crate) fn port(&self) -> Option<Located<u16>> {
        let port = self.integer(1..=65_535)?;
        Some(port.map(|port| u16::try_from(port).expect("the range above ends at 65535")))
    }

    pub(crate) fn size(&self, range: RangeInclusive<u64>) -> Option<Located<u64>> {
        const RIGHT: &str = "write it like \"64MiB\", \"20GiB\" or \"4TB\"";
        let Some(bytes) = self.value.get_ref().as_str().and_then(parse_size) else {
            self.wrong("a size with a unit", RIGHT);
            return None;
        };
        if range.contains(&bytes) {
            return Some(self.located(bytes));
        }
        self.wrong("in range", span_of(&range, format_size));
        None
    }

    pub(crate) fn duration_ms(&self, range: RangeInclusive<u64>) -> Option<Located<u64>> {
        const RIGHT: &str = "write it like \"450ms\", \"3s\", \"12h\" or \"14d\"";
        let Some(ms) = self.value.get_ref().as_str().and_then(parse_duration_ms) else {
            self.wrong("a duration with a unit", RIGHT);
            return None;
        };
        if range.contains(&ms) {
            return Some(self.located(ms));
        }
        self.wrong("in range", span_of(&range, format_duration_ms));
        None
    }

    pub(crate) fn address(&self) -> Option<Located<IpAddr>> {
        let found = self
            .value
            .get_ref()
            .as_str()
            .and_then(|text| text.parse().ok());
        if found.is_none() {
            self.wrong(
                "an IP address",
                "write it like \"192.0.2.11\" or \"2001:db8::11\"",
            );
        }
        found.map(|address| self.located(address))
    }

    /// One of a few words.
    pub(crate) fn choice<T: Clone>(&self, words: &[(&str, T)]) -> Option<Located<T>> {
        let text = self.value.get_ref().as_str();
        if let Some((_, value)) = words.iter().find(|(word, _)| Some(*word) == text) {
            return Some(self.located(value.clone()));
        }
        let listed: Vec<_> = words
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect();
        self.wrong("one of its words", format!("write {}", listed.join(" or ")));
        None
    }

    pub(crate) fn table(&self, right: &str) -> Option<Reader<'a, 't>> {
        match self.value.get_ref() {
            DeValue::Table(table) => Some(Reader::new(self.faults, table, &self.name, self.span())),
            _ => {
                self.wrong("a table", right);
                None
            }
        }
    }

    /// The elements of an array.
    pub(crate) fn array(&self, right: &str) -> Option<Vec<Item<'a, 't>>> {
        match self.value.get_ref() {
            DeValue::Array(array) => Some(
                array
                    .iter()
                    .map(|value| Item {
                        faults: self.faults,
                        name: self.name.clone(),
                        value,
                    })
                    .collect(),
            ),
            _ => {
                self.wrong("a list", right);
                None
            }
        }
    }

    /// The tables of an array of tables; elements that are none are noted.
    pub(crate) fn tables(&self, right: &str) -> Vec<Reader<'a, 't>> {
        let elements = self.array(right).unwrap_or_default();
        elements
            .iter()
            .filter_map(|element| element.table(right))
            .collect()
    }
}

fn span_of(range: &RangeInclusive<u64>, format: fn(u64) -> String) -> String {
    if *range.end() == u64::MAX {
        format!("{} or more would be right", format(*range.start()))
    } else {
        format!(
            "from {} to {} would be right",
            format(*range.start()),
            format(*range.end())
        )
    }
}
