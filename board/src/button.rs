//! The power button: an orderly end, as the console's `poweroff` gives one. Holding it still cuts the power.

use std::fs::{self, File};
use std::io::{self, Read};
use std::thread;

/// `struct input_event` on 64 bits: two words of time, then type, code and value.
const EVENT_BYTES: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
/// Devices that are listened to: a box has a handful.
const DEVICES_MAX: usize = 16;

/// Whether the event says that the power button went down.
fn pressed(event: &[u8; EVENT_BYTES]) -> bool {
    let short = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
    let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
    (short(16), short(18), value) == (EV_KEY, KEY_POWER, 1)
}

/// Calls `tell` each time that the button goes down, from a thread for each input device.
pub(crate) fn listen(tell: impl Fn() + Clone + Send + 'static) -> io::Result<()> {
    let devices = fs::read_dir("/dev/input")?
        .flatten()
        .map(|entry| entry.path());
    let events = devices.filter(|path| path.to_string_lossy().contains("/event"));
    for path in events.take(DEVICES_MAX) {
        let mut device = File::open(path)?;
        let tell = tell.clone();
        thread::Builder::new()
            .name("button".to_owned())
            .spawn(move || {
                let mut event = [0; EVENT_BYTES];
                // A device that goes away says nothing any more.
                while device.read_exact(&mut event).is_ok() {
                    if pressed(&event) {
                        tell();
                    }
                }
            })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_power_key_going_down_counts() {
        let event = |kind: u16, code: u16, value: i32| {
            let mut event = [0xff; EVENT_BYTES];
            event[16..18].copy_from_slice(&kind.to_ne_bytes());
            event[18..20].copy_from_slice(&code.to_ne_bytes());
            event[20..].copy_from_slice(&value.to_ne_bytes());
            event
        };
        assert!(pressed(&event(EV_KEY, KEY_POWER, 1)));
        assert!(!pressed(&event(EV_KEY, KEY_POWER, 0)), "released");
        assert!(!pressed(&event(EV_KEY, KEY_POWER, 2)), "held");
        assert!(!pressed(&event(EV_KEY, 30, 1)), "another key");
        assert!(!pressed(&event(0, KEY_POWER, 1)), "no key at all");
    }
}
