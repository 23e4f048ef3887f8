//! Tables: aligned columns for people, an array of objects for programs.

use std::io::{self, Write};

use serde_json::{Map, Value};

use crate::failure::Failure;

/// What a command prints.
pub(crate) struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    /// An empty table; a column's name is also its key in JSON.
    pub(crate) fn new(columns: &[&'static str]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// One more row, as many values as there are columns.
    pub(crate) fn row(&mut self, values: impl IntoIterator<Item = Value>) {
        let row: Vec<Value> = values.into_iter().collect();
        assert_eq!(row.len(), self.columns.len(), "a value for each column");
        self.rows.push(row);
    }

    /// Prints to stdout.
    pub(crate) fn print(&self, json: bool) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let text = if json { self.json() } else { self.text() };
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(Failure::output)
    }

    fn json(&self) -> String {
        let object = |row: &Vec<Value>| {
            let fields = self.columns.iter().zip(row).map(|(column, value)| {
                (
                    column.replace('/', "_per_").replace(' ', "_"),
                    value.clone(),
                )
            });
            Value::Object(fields.collect::<Map<_, _>>())
        };
        let rows = Value::Array(self.rows.iter().map(object).collect());
        format!(
            "{}\n",
            serde_json::to_string_pretty(&rows).expect("plain values")
        )
    }

    fn text(&self) -> String {
        let shown: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| row.iter().map(show).collect())
            .collect();
        let width = |at: usize| {
            let cells = shown.iter().map(|row| row[at].chars().count());
            cells
                .chain([self.columns[at].len()])
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        // Numbers stand to the right, so that they can be compared.
        let right: Vec<bool> = (0..self.columns.len())
            .map(|at| self.rows.iter().any(|row| row[at].is_number()))
            .collect();
        let line = |cells: Vec<String>| {
            let padded = cells.iter().enumerate().map(|(at, cell)| {
                let blank = " ".repeat(widths[at] - cell.chars().count());
                if right[at] {
                    format!("{blank}{cell}")
                } else {
                    format!("{cell}{blank}")
                }
            });
            let joined: Vec<String> = padded.collect();
            format!("{}\n", joined.join("  ").trim_end())
        };
        let head = line(
            self.columns
                .iter()
                .map(|column| (*column).to_owned())
                .collect(),
        );
        shown.into_iter().fold(head, |text, row| text + &line(row))
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(show).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// A line of what was done, on stderr: stdout is for what was asked for.
pub(crate) fn said(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn people_get_columns_and_programs_objects() {
        let mut table = Table::new(&["topic", "partitions", "in sync"]);
        table.row([
            "short".into(),
            4.into(),
            Value::Array(vec![1.into(), 2.into()]),
        ]);
        table.row(["much longer".into(), 12.into(), Value::Null]);
        assert_eq!(
            table.text(),
            "topic        partitions  in sync\nshort                 4  1,2\nmuch longer          12  -\n"
        );
        let json: Value = serde_json::from_str(&table.json()).unwrap();
        assert_eq!(json[0]["in_sync"][1], 2);
        assert_eq!(json[1]["topic"], "much longer");
    }
}
