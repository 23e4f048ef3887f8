//! What is wrong with a site file, and exactly where.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

/// One thing wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// The file's name as given.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What was found, and what would be right.
    pub message: String,
}

/// `file:line:column: message`, as compilers and editors know it.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}: {}",
            self.file, self.line, self.column, self.message
        )
    }
}

impl std::error::Error for Diagnostic {}

/// A place in the text, in bytes.
pub(crate) type Span = Range<usize>;

/// Collects everything wrong with one file. Shared by all readers of its tables, hence the cell.
pub(crate) struct Faults<'t> {
    file: &'t str,
    text: &'t str,
    found: RefCell<Vec<Diagnostic>>,
}

impl<'t> Faults<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str) -> Self {
        Self {
            file,
            text,
            found: RefCell::default(),
        }
    }

    /// Notes that something is wrong at `span`.
    pub(crate) fn add(&self, span: &Span, message: impl Into<String>) {
        let (line, column) = self.line_column(span.start);
        self.found.borrow_mut().push(Diagnostic {
            file: self.file.to_owned(),
            line,
            column,
            message: message.into(),
        });
    }

    /// The text at `span` as found, cut if it is long.
    pub(crate) fn found(&self, span: &Span) -> String {
        const SHOWN_CHARS: usize = 40;
        let text = self.text.get(span.clone()).unwrap_or_default();
        let first = text.lines().next().unwrap_or_default();
        let cut: String = first.chars().take(SHOWN_CHARS).collect();
        if cut.len() < text.len() {
            format!("{cut}…")
        } else {
            cut
        }
    }

    /// The line of a place, for messages that name another one.
    pub(crate) fn line(&self, span: &Span) -> usize {
        self.line_column(span.start).0
    }

    fn line_column(&self, at: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(at)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }

    pub(crate) fn count(&self) -> usize {
        self.found.borrow().len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Everything, in the order of the file, each once.
    pub(crate) fn into_sorted(self) -> Vec<Diagnostic> {
        let mut found = self.found.into_inner();
        // By place only: two faults at one place stay in the order in which they were found.
        found.sort_by_key(|fault| (fault.line, fault.column));
        found.dedup();
        found
    }
}
