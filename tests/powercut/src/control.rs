//! The switchboard of an emulated disk: one line in, one line out, over a Unix socket.
//!
//! ```text
//! cut                       the power goes; answers `ok writes=… torn=… reverted=… kept=…`
//! off                       what waits, and all that comes, gets EIO
//! on                        power again, no faults
//! stall MS                  answers nothing for so long
//! eio write N [for-good]    the N-th write from now fails, and all later ones
//! eio flush N               the N-th FLUSH from now fails
//! eio read OFFSET BYTES     reads that touch the range fail
//! trap FILE PART PASSES     hangs at a request while the phase file says PART, after so many of them
//! sprung                    `ok sprung=1` if it hangs there
//! lie                       FLUSH is answered and does nothing
//! fragile OFFSET BYTES      in this range a cut tears single sectors; elsewhere blocks of 4 KiB are whole
//! fragile none              nowhere
//! heal                      no faults any more
//! stats                     `ok reads=… writes=… flushes=… bytes_read=… bytes_written=… errors=… unflushed=… seeks=… busy_ms=…`
//! ```

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::emulator::Emulator;
use crate::phase::Trap;

/// Serves the socket; each caller on a thread of its own. Returns when the listener fails.
pub(crate) fn serve(listener: &UnixListener, emulator: &Arc<Emulator>) -> io::Result<()> {
    for stream in listener.incoming() {
        let (stream, emulator) = (stream?, emulator.clone());
        std::thread::spawn(move || talk(&stream, &emulator));
    }
    Ok(())
}

fn talk(stream: &UnixStream, emulator: &Emulator) -> io::Result<()> {
    for line in BufReader::new(stream).lines() {
        let answer = match obey(&line?, emulator) {
            Ok(said) if said.is_empty() => "ok\n".to_owned(),
            Ok(said) => format!("ok {said}\n"),
            Err(why) => format!("error {why}\n"),
        };
        (&mut &*stream).write_all(answer.as_bytes())?;
    }
    Ok(())
}

fn obey(line: &str, emulator: &Emulator) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |word: &str| {
        word.parse::<u64>()
            .map_err(|_| format!("`{word}` is no number"))
    };
    let done = match words[..] {
        ["cut"] => {
            let cut = emulator.cut().map_err(|it| format!("the image: {it}"))?;
            format!(
                "writes={} torn={} reverted={} kept={}",
                cut.writes, cut.torn, cut.reverted, cut.kept
            )
        }
        ["stats"] => {
            let (counts, unflushed, seeks, busy) = emulator.stats();
            format!(
                "reads={} writes={} flushes={} bytes_read={} bytes_written={} errors={} unflushed={unflushed} seeks={seeks} busy_ms={:.0}",
                counts.reads,
                counts.writes,
                counts.flushes,
                counts.bytes_read,
                counts.bytes_written,
                counts.errors,
                busy * 1e3
            )
        }
        ["sprung"] => format!("sprung={}", u64::from(emulator.sprung())),
        ["trap", phases, part, passes] => {
            let trap = Trap::set(Path::new(phases), part, number(passes)?);
            emulator.trap(trap.map_err(|it| format!("{phases}: {it}"))?);
            String::new()
        }
        _ => {
            match words[..] {
                ["off"] => emulator.off(),
                ["on"] => emulator.on(),
                ["fragile", "none"] => emulator.fragile(None),
                ["fragile", offset, bytes] => {
                    emulator.fragile(Some((number(offset)?, number(bytes)?)))
                }
                ["lie"] => emulator.lie(),
                ["heal"] => emulator.heal(),
                ["stall", ms] => emulator.stall(Duration::from_millis(number(ms)?)),
                ["eio", "write", nth] => emulator.fail_write(number(nth)?, false),
                ["eio", "write", nth, "for-good"] => emulator.fail_write(number(nth)?, true),
                ["eio", "flush", nth] => emulator.fail_flush(number(nth)?),
                ["eio", "read", offset, bytes] => {
                    emulator.fail_reads(number(offset)?, number(bytes)?)
                }
                _ => return Err(format!("`{line}` is no command")),
            }
            String::new()
        }
    };
    Ok(done)
}

/// The other end of the line.
#[derive(Debug)]
pub(crate) struct Control(BufReader<UnixStream>);

impl Control {
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        // A disk that answers no more must not hang the run.
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Says one line and gives what was answered after `ok`.
    pub(crate) fn say(&mut self, line: &str) -> io::Result<String> {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes())?;
        let mut answer = String::new();
        self.0.read_line(&mut answer)?;
        match answer.trim_end().strip_prefix("ok") {
            Some(said) => Ok(said.trim_start().to_owned()),
            None => Err(io::Error::other(format!("{line}: {}", answer.trim_end()))),
        }
    }

    /// One number of `stats` or of what `cut` answers.
    pub(crate) fn number(said: &str, name: &str) -> u64 {
        let mut words = said.split_whitespace();
        let found = words.find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
        found.and_then(|it| it.parse().ok()).unwrap_or(0)
    }
}
