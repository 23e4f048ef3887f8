//! Where to begin in a log: earliest, latest, an offset, or a time.

use std::str::FromStr;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The first record there is.
    Earliest,
    /// Behind the last one.
    Latest,
    /// This offset.
    Offset(i64),
    /// The first record that is not older, in milliseconds since 1970.
    Time(i64),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        if let Ok(offset) = text.parse::<i64>() {
            return if offset >= 0 {
                Ok(Self::Offset(offset))
            } else {
                Err("an offset is 0 or more".to_owned())
            };
        }
        read_time(text).map(Self::Time).ok_or_else(|| {
            "write earliest, latest, an offset, or a time such as 2026-03-01T06:00:00Z".to_owned()
        })
    }
}

/// Milliseconds of `YYYY-MM-DD` or `YYYY-MM-DDTHH:MM:SSZ`, in UTC.
fn read_time(text: &str) -> Option<i64> {
    let (date, time) = text.split_once('T').unwrap_or((text, "00:00:00Z"));
    let numbers = |text: &str, separator: char| -> Option<Vec<i64>> {
        text.split(separator)
            .map(|part| {
                part.chars()
                    .all(|c| c.is_ascii_digit())
                    .then(|| part.parse().ok())
                    .flatten()
            })
            .collect()
    };
    let [year, month, day] = numbers(date, '-')?.try_into().ok()?;
    let [hour, minute, second] = numbers(time.strip_suffix('Z')?, ':')?.try_into().ok()?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !((1970..=9999).contains(&year)
        && (1..=days).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60)
    {
        return None;
    }
    Some((((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * 1_000)
}

/// Years begin in March, so that the leap day is their last (Howard Hinnant's `days_from_civil`).
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_words_offsets_and_times() {
        for (text, place) in [
            ("earliest", Place::Earliest),
            ("latest", Place::Latest),
            ("0", Place::Offset(0)),
            ("1200", Place::Offset(1200)),
            ("1970-01-01", Place::Time(0)),
            ("2000-03-01", Place::Time(951_868_800_000)),
            ("2024-02-29T12:34:56Z", Place::Time(1_709_210_096_000)),
        ] {
            assert_eq!(text.parse(), Ok(place), "{text}");
        }
        for text in [
            "",
            "now",
            "-1",
            "2023-02-29",
            "2024-13-01",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00",
            "24-1-1-1",
            "+5-01-01",
        ] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
