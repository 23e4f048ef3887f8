//! Sizes and durations as people write them, both ways.
//!
//! A size is a number and one of B, kB, MB, GB, TB (powers of 1,000) or KiB, MiB, GiB, TiB (powers of 1,024); a
//! duration is a number and one of ms, s, m, h, d. The number may have up to three decimals. A bare number is refused:
//! nobody agrees on what it counts.

/// One kibibyte.
pub const KIB: u64 = 1 << 10;
/// One mebibyte.
pub const MIB: u64 = 1 << 20;
/// One gibibyte.
pub const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("KiB", KIB),
    ("MB", 1_000_000),
    ("MiB", MIB),
    ("GB", 1_000_000_000),
    ("GiB", GIB),
    ("TB", 1_000_000_000_000),
    ("TiB", TIB),
];

const DURATIONS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Bytes of a size such as `"64MiB"`; `None` if it is none, or beyond `u64`.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    parse(text, &SIZES)
}

/// Milliseconds of a duration such as `"450ms"` or `"14d"`; `None` if it is none, or beyond `u64`.
#[must_use]
pub fn parse_duration_ms(text: &str) -> Option<u64> {
    parse(text, &DURATIONS)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    let (number, unit) = text.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 3 {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let thousandths =
        u128::from(whole.parse::<u64>().ok()?) * scale + u128::from(fraction.parse::<u64>().ok()?);
    u64::try_from(thousandths * u128::from(factor) / scale).ok()
}

/// A size for people: the largest binary unit that divides it, or one decimal of the one below it.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)];
    for (name, unit) in UNITS {
        if bytes >= unit {
            return if bytes.is_multiple_of(unit) {
                format!("{} {name}", bytes / unit)
            } else {
                let tenths = u128::from(bytes) * 10 / u128::from(unit);
                format!("{}.{} {name}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{bytes} B")
}

/// A duration for people: the largest unit that divides it.
#[must_use]
pub fn format_duration_ms(ms: u64) -> String {
    let (name, unit) = DURATIONS
        .iter()
        .rev()
        .find(|(_, unit)| ms != 0 && ms.is_multiple_of(*unit))
        .unwrap_or(&DURATIONS[1]);
    format!("{} {name}", ms / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_carry_their_unit() {
        for (text, bytes) in [
            ("0B", 0),
            ("64MiB", 64 << 20),
            ("4TB", 4_000_000_000_000),
            ("1.5GiB", 3 << 29),
            ("10 kB", 10_000),
            ("0.001kB", 1),
            ("18446744073709551615B", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "64",
            "MiB",
            "64mib",
            "64 M",
            "-1MiB",
            "1e3MB",
            ".5GB",
            "1.GB",
            "1.2.3GB",
            "1.2345GB",
            "64MiB ",
            "18446744073709551616B",
            "99999999TB",
            "1  MB",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn durations_carry_their_unit() {
        for (text, ms) in [
            ("0s", 0),
            ("450ms", 450),
            ("14d", 14 * 86_400_000),
            ("1.5h", 5_400_000),
            ("5m", 300_000),
        ] {
            assert_eq!(parse_duration_ms(text), Some(ms), "{text}");
        }
        for text in ["0", "14", "14days", "d", "1w", "-1s"] {
            assert_eq!(parse_duration_ms(text), None, "{text}");
        }
    }

    #[test]
    fn what_people_read_is_not_more_than_there_is() {
        assert_eq!(format_size(64 << 20), "64 MiB");
        assert_eq!(format_size(4_000_000_000_000), "3.6 TiB");
        assert_eq!(format_size(1_000), "1000 B");
        assert_eq!(format_size(u64::MAX), "16777215.9 TiB");
        assert_eq!(format_duration_ms(14 * 86_400_000), "14 d");
        assert_eq!(format_duration_ms(450), "450 ms");
        assert_eq!(format_duration_ms(0), "0 s");
    }
}
