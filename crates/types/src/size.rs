//! Sizes in bytes, with the suffixes that Docker's flags take.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A number of bytes. As text: a number with an optional `b`, `k`, `m`, `g`, `t` (powers of 1024),
/// optionally followed by `b` or `ib`, in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

/// A text that is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid size: '{0}': expected a number with an optional unit b, k, m, g or t")]
pub struct ParseByteSizeError(pub String);

impl ByteSize {
    /// Binary units and at most four significant digits, as Docker shows memory: `23.59GiB`.
    pub fn binary(self) -> String {
        scaled(
            self.0,
            1024.0,
            &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"],
        )
    }

    /// Decimal units and at most four significant digits, as `docker ps -s` shows disks: `1.234kB`.
    pub fn decimal(self) -> String {
        scaled(self.0, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
    }
}

fn scaled(bytes: u64, step: f64, names: &[&str]) -> String {
    #[allow(clippy::cast_precision_loss)]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= step && unit + 1 < names.len() {
        value /= step;
        unit += 1;
    }
    let decimals = match value {
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{}", names.get(unit).unwrap_or(&""))
}

impl FromStr for ByteSize {
    type Err = ParseByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseByteSizeError(text.chars().take(40).collect());
        let lower = text.trim().to_ascii_lowercase();
        let split = lower
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(lower.len());
        let (number, unit) = lower.split_at(split);
        let shift = match unit.trim_start() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(bad()),
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(1 << shift).map(Self).ok_or_else(bad);
        }
        let value =
            number.parse::<f64>().map_err(|_| bad())? * f64::from(1u32 << (shift / 2)).powi(2);
        // 2^63: above it a fraction makes no sense, and below it the cast is exact enough.
        if value.is_finite() && (0.0..9.2e18).contains(&value) {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Ok(Self(value as u64))
        } else {
            Err(bad())
        }
    }
}

impl fmt::Display for ByteSize {
    /// Decimal units and three significant digits, as `docker images` prints sizes: `124MB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
        #[allow(clippy::cast_precision_loss)]
        let mut value = self.0 as f64;
        let mut unit = 0;
        while value >= 1000.0 && unit + 1 < UNITS.len() {
            value /= 1000.0;
            unit += 1;
        }
        let text = if value >= 100.0 {
            format!("{value:.0}")
        } else if value >= 10.0 {
            format!("{value:.1}")
        } else {
            format!("{value:.2}")
        };
        let text = if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.')
        } else {
            &text
        };
        write!(f, "{text}{}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024_on_input() {
        for (text, bytes) in [
            ("0", 0),
            ("64", 64),
            ("64b", 64),
            ("1k", 1024),
            ("512m", 512 << 20),
            ("1.5g", 1610612736),
            ("2GiB", 2 << 30),
            ("1TB", 1 << 40),
        ] {
            assert_eq!(text.parse::<ByteSize>().unwrap().0, bytes, "{text}");
        }
        for bad in [
            "",
            "m",
            "-1",
            "1x",
            "1.2.3g",
            "99999999999999999999",
            "20000000t",
        ] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn output_is_decimal_with_three_digits() {
        assert_eq!(ByteSize(0).to_string(), "0B");
        assert_eq!(ByteSize(124_000_000).to_string(), "124MB");
        assert_eq!(ByteSize(4_260_000).to_string(), "4.26MB");
        assert_eq!(ByteSize(1_500).to_string(), "1.5kB");
    }
}
