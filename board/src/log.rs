//! What the board says: each line goes to the kernel's log, and with it to the console, and the last ones stay at hand
//! for the console's `log`.
//!
//! Writing to /dev/kmsg never waits for a terminal, which a serial port without a reader could make last for ever.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Lines kept: a start says about sixty.
const LINES_MAX: usize = 256;
/// A line's bytes; printk takes 1,024 with its own prefix.
const LINE_BYTES_MAX: usize = 800;

static LINES: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());
static KERNEL: OnceLock<Option<File>> = OnceLock::new();

/// Says one line, as `format!` writes it.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::log::line(format_args!($($text)*)) };
}

/// See [`say!`].
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let mut text = text.to_string();
    if text.len() > LINE_BYTES_MAX {
        let end = (0..=LINE_BYTES_MAX)
            .rev()
            .find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    }
    // One record each: a newline would begin another one without our name.
    let text = text.replace('\n', "; ");
    let kernel = KERNEL.get_or_init(|| OpenOptions::new().write(true).open("/dev/kmsg").ok());
    match kernel {
        // A full kernel log overwrites its oldest record; nothing better could be done about an error here.
        Some(kernel) => drop((&*kernel).write_all(format!("<5>board: {text}\n").as_bytes())),
        None => eprintln!("board: {text}"),
    }
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    if lines.len() == LINES_MAX {
        lines.pop_front();
    }
    lines.push_back(text);
}

/// The last `count` lines, oldest first.
pub(crate) fn last(count: usize) -> Vec<String> {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines
        .iter()
        .skip(lines.len().saturating_sub(count))
        .cloned()
        .collect()
}
