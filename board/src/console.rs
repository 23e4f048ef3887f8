//! The serial console: a fixed set of commands, no shell. What erases something asks for a typed confirmation.
//!
//! [`Console`] turns lines into [`Order`]s and is tested as text; `open` reads and writes the terminal. Nothing waits for a
//! terminal: a serial port without a reader can block a writer for ever, so what does not fit is dropped.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;

/// Bytes of a line; more are dropped up to the next newline.
const LINE_BYTES_MAX: usize = 256;
/// A confirmation counts for so long.
const CONFIRM_MAX: Duration = Duration::from_secs(60);

/// What the commands are.
pub(crate) const HELP: &str = "\
status                 the broker, the clock, the network, the last reasons for a restart
slots                  which boot image runs, which one is next
disks                  every drive, and what became of the site's disks
net test ADDRESS PORT  opens a connection
config show            the site as this node has it
log                    the last lines of the board and the broker
factory reset config   forgets site and keys; the data stays
factory reset data     makes this node's disks blank
reboot | poweroff      in order
";

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Answer with [`HELP`].
    Help,
    Status,
    Slots,
    Disks,
    NetTest {
        host: String,
        port: u16,
    },
    ConfigShow,
    Log,
    ForgetConfig,
    EraseData,
    Reboot,
    PowerOff,
    /// Answer with this.
    Say(String),
}

/// What waits for its confirmation.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Waiting {
    order: Order,
    phrase: String,
    until: Duration,
}

/// Reads commands.
#[derive(Debug, Default)]
pub(crate) struct Console {
    waiting: Option<Waiting>,
}

impl Console {
    /// One line. `node` is what a person must type to erase something: the node's name, so that it is not the wrong box.
    pub(crate) fn line(&mut self, now: Duration, line: &str, node: Option<&str>) -> Option<Order> {
        let line = line.trim();
        if let Some(waiting) = self.waiting.take() {
            if now <= waiting.until && line == waiting.phrase {
                return Some(waiting.order);
            }
            return Some(Order::Say("not confirmed, nothing was done".to_owned()));
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        Some(match words[..] {
            [] => return None,
            ["help" | "?"] => Order::Help,
            ["status"] => Order::Status,
            ["slots"] => Order::Slots,
            ["disks"] => Order::Disks,
            ["config", "show"] => Order::ConfigShow,
            ["log"] => Order::Log,
            ["reboot"] => Order::Reboot,
            ["poweroff"] => Order::PowerOff,
            ["net", "test", host, port] => match port.parse() {
                Ok(port) => Order::NetTest {
                    host: host.to_owned(),
                    port,
                },
                Err(_) => Order::Say(format!("{port} is no port; 1 to 65535 would be right")),
            },
            ["factory", "reset", what @ ("config" | "data")] => {
                let (order, loss) = match what {
                    "config" => (Order::ForgetConfig, "the site and the keys of this node"),
                    _ => (Order::EraseData, "every record on this node's disks"),
                };
                let phrase = format!("erase {what} of {}", node.unwrap_or("this box"));
                let ask = format!("{loss} will be gone. To go on, type within a minute: {phrase}");
                self.waiting = Some(Waiting {
                    order,
                    phrase,
                    until: now + CONFIRM_MAX,
                });
                Order::Say(ask)
            }
            _ => Order::Say("no such command; \"help\" lists them".to_owned()),
        })
    }
}

/// Takes lines out of what a terminal sends.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
    /// The line is too long.
    over: bool,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(String)) {
        for byte in bytes {
            match byte {
                b'\n' | b'\r' => {
                    if !self.over {
                        each(String::from_utf8_lossy(&self.line).into_owned());
                    }
                    self.line.clear();
                    self.over = false;
                }
                _ if self.line.len() == LINE_BYTES_MAX => self.over = true,
                byte => self.line.push(*byte),
            }
        }
    }
}

/// The terminal's writing end.
#[derive(Clone, Debug)]
pub(crate) struct Terminal(Arc<File>);

impl Terminal {
    /// Writes what fits.
    pub(crate) fn print(&self, text: &str) {
        let text = text.trim_end().replace('\n', "\r\n");
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match (&*self.0).write(rest) {
                Ok(written) if written > 0 => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Full, or gone.
                _ => return,
            }
        }
        let _ = (&*self.0).write_all(b"\r\n");
    }
}

/// Opens the kernel's console and hands `tell` each line, for ever.
pub(crate) fn open(tell: impl Fn(String) + Send + 'static) -> io::Result<Terminal> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags.bits() as i32)
        .open("/dev/console")?;
    let file = Arc::new(file);
    let terminal = Terminal(file.clone());
    thread::Builder::new()
        .name("console".to_owned())
        .spawn(move || {
            let mut lines = Lines::default();
            let mut bytes = [0; 256];
            loop {
                let mut ready = [PollFd::new(&*file, PollFlags::IN)];
                // EINTR and a line that hung up are tried again, not in a hot loop.
                let polled = poll(&mut ready, None);
                match io::Read::read(&mut &*file, &mut bytes) {
                    Ok(length) if length > 0 => lines.feed(&bytes[..length], &tell),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock && polled.is_ok() => {}
                    _ => thread::sleep(Duration::from_secs(1)),
                }
            }
        })?;
    Ok(terminal)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn say(order: Option<Order>) -> String {
        match order {
            Some(Order::Say(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_command() {
        let mut console = Console::default();
        let mut line = |text| console.line(NOW, text, Some("a"));
        assert_eq!(line("  \t"), None);
        assert_eq!(line(" status "), Some(Order::Status));
        assert_eq!(line("slots"), Some(Order::Slots));
        assert_eq!(line("disks"), Some(Order::Disks));
        assert_eq!(line("config  show"), Some(Order::ConfigShow));
        assert_eq!(line("log"), Some(Order::Log));
        assert_eq!(line("?"), Some(Order::Help));
        assert_eq!(line("reboot"), Some(Order::Reboot));
        assert_eq!(line("poweroff"), Some(Order::PowerOff));
        let test = Order::NetTest {
            host: "192.0.2.1".to_owned(),
            port: 9092,
        };
        assert_eq!(line("net test 192.0.2.1 9092"), Some(test));
        for wrong in [
            "net test 192.0.2.1 99999",
            "net test",
            "sh",
            "status; sh",
            "STATUS",
            "factory reset",
            "factory reset all",
        ] {
            say(line(wrong));
        }
        for command in HELP.lines() {
            let word = command.split_whitespace().next().unwrap();
            assert!(line(word).is_some(), "{word}");
        }
    }

    #[test]
    fn what_erases_asks_for_its_own_phrase_once_and_in_time() {
        let mut console = Console::default();
        let ask = say(console.line(NOW, "factory reset data", Some("a")));
        assert!(ask.ends_with("erase data of a"), "{ask}");
        assert_eq!(
            console.line(NOW, "erase data of a", Some("a")),
            Some(Order::EraseData)
        );
        // Not without being asked, not for something else, not for another node, not too late.
        say(console.line(NOW, "erase data of a", Some("a")));
        for (first, then, at) in [
            ("factory reset data", "erase config of a", NOW),
            ("factory reset data", "erase data of b", NOW),
            ("factory reset config", "yes", NOW),
            (
                "factory reset config",
                "erase config of a",
                NOW + Duration::from_secs(61),
            ),
        ] {
            say(console.line(NOW, first, Some("a")));
            assert_eq!(
                say(console.line(at, then, Some("a"))),
                "not confirmed, nothing was done"
            );
        }
        say(console.line(NOW, "factory reset config", None));
        assert_eq!(
            console.line(NOW, "erase config of this box", None),
            Some(Order::ForgetConfig)
        );
    }

    #[test]
    fn lines_of_any_length_and_any_bytes() {
        let mut lines = Lines::default();
        let mut got = Vec::new();
        lines.feed(b"sta", |line| got.push(line));
        lines.feed(b"tus\r\n\xff\n", |line| got.push(line));
        lines.feed(&vec![b'x'; 100_000], |line| got.push(line));
        lines.feed(b"\nlog\n", |line| got.push(line));
        assert_eq!(got, ["status", "", "\u{fffd}", "log"]);
        assert!(lines.line.capacity() <= 1024);
    }
}
