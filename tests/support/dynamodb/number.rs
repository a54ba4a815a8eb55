//! DynamoDB's numbers: decimals of up to 38 digits, compared by value, from 1E-130 to below 1E+126.

use std::cmp::Ordering;
use std::fmt;

/// Significant digits that a number may have.
const DIGITS_MAX: u32 = 38;
/// The smallest and the greatest exponent of a number's first digit.
const MAGNITUDES: std::ops::RangeInclusive<i32> = -130..=125;

/// `coefficient` × 10^`exponent`, without zeros at the coefficient's end; zero is positive with exponent 0, so that equal
/// numbers are equal field by field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Number {
    negative: bool,
    coefficient: u128,
    exponent: i32,
}

impl Number {
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("The parameter cannot be converted to a numeric value: {text}");
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i16>().map_err(|_| wrong())?.into()),
            None => (rest, 0i32),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty() && fraction.is_empty() {
            return Err(wrong());
        }
        let mut coefficient = 0u128;
        let mut zeros = 0i32;
        let mut digits = 0;
        for byte in whole.bytes().chain(fraction.bytes()) {
            if !byte.is_ascii_digit() {
                return Err(wrong());
            }
            zeros += 1;
            if byte != b'0' {
                // The zeros held back count only now that a digit follows them.
                let shift = if coefficient == 0 { 1 } else { zeros as u32 };
                digits += shift;
                if digits > DIGITS_MAX {
                    return Err("Attempting to store more than 38 significant digits in a Number".to_owned());
                }
                coefficient = coefficient * 10u128.pow(shift) + u128::from(byte - b'0');
                zeros = 0;
            }
        }
        Self::normal(negative, coefficient, exponent - fraction.len() as i32 + zeros)
    }

    fn normal(negative: bool, mut coefficient: u128, mut exponent: i32) -> Result<Self, String> {
        if coefficient == 0 {
            return Ok(Self { negative: false, coefficient: 0, exponent: 0 });
        }
        while coefficient.is_multiple_of(10) {
            coefficient /= 10;
            exponent += 1;
        }
        let number = Self { negative, coefficient, exponent };
        match number.magnitude() {
            m if m > *MAGNITUDES.end() => {
                Err("Number overflow. Attempting to store a number with magnitude larger than supported range"
                    .to_owned())
            }
            m if m < *MAGNITUDES.start() => {
                Err("Number underflow. Attempting to store a number with magnitude smaller than supported range"
                    .to_owned())
            }
            _ => Ok(number),
        }
    }

    /// The exponent of the first digit.
    fn magnitude(&self) -> i32 {
        self.exponent + self.coefficient.ilog10() as i32
    }

    pub fn add(&self, other: &Self) -> Result<Self, String> {
        if self.coefficient == 0 {
            return Ok(*other);
        }
        if other.coefficient == 0 {
            return Ok(*self);
        }
        let (high, low) = if self.exponent >= other.exponent { (self, other) } else { (other, self) };
        let too_long = || "Attempting to store more than 38 significant digits in a Number".to_owned();
        let scale = 10u128.checked_pow((high.exponent - low.exponent) as u32).ok_or_else(too_long)?;
        let high_coefficient = high.coefficient.checked_mul(scale).ok_or_else(too_long)?;
        let (negative, sum) = if high.negative == low.negative {
            (high.negative, high_coefficient.checked_add(low.coefficient).ok_or_else(too_long)?)
        } else if high_coefficient >= low.coefficient {
            (high.negative, high_coefficient - low.coefficient)
        } else {
            (low.negative, low.coefficient - high_coefficient)
        };
        let sum = Self::normal(negative, sum, low.exponent)?;
        if sum.coefficient >= 10u128.pow(DIGITS_MAX) { Err(too_long()) } else { Ok(sum) }
    }

    pub fn subtract(&self, other: &Self) -> Result<Self, String> {
        self.add(&Self { negative: !other.negative && other.coefficient != 0, ..*other })
    }

    pub fn of(value: usize) -> Self {
        Self::normal(false, value as u128, 0).expect("a usize is in range")
    }

    pub fn as_f64(&self) -> f64 {
        self.to_string().parse().expect("a decimal")
    }

    /// What it counts in an item's size.
    pub fn size(&self) -> usize {
        let digits = if self.coefficient == 0 { 1 } else { self.coefficient.ilog10() as usize + 1 };
        digits.div_ceil(2) + 1 + usize::from(self.negative)
    }

    fn compare_absolute(&self, other: &Self) -> Ordering {
        if self.coefficient == 0 || other.coefficient == 0 {
            return self.coefficient.cmp(&other.coefficient);
        }
        self.magnitude().cmp(&other.magnitude()).then_with(|| {
            // Of one magnitude: the shorter coefficient gets zeros until both are of one length, at most 38 digits.
            let (a, b) = (self.coefficient.ilog10(), other.coefficient.ilog10());
            let longer = a.max(b);
            (self.coefficient * 10u128.pow(longer - a)).cmp(&(other.coefficient * 10u128.pow(longer - b)))
        })
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => self.compare_absolute(other),
            (true, true) => other.compare_absolute(self),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negative {
            f.write_str("-")?;
        }
        if self.exponent >= 0 {
            return write!(f, "{}{}", self.coefficient, "0".repeat(self.exponent as usize));
        }
        let places = -self.exponent as usize;
        let digits = format!("{:0>width$}", self.coefficient, width = places + 1);
        let (whole, fraction) = digits.split_at(digits.len() - places);
        write!(f, "{whole}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap()
    }

    #[test]
    fn a_number_is_its_value_however_it_is_written() {
        for (written, read) in [
            ("0", "0"),
            ("-0.0", "0"),
            ("+1", "1"),
            ("100", "100"),
            ("1e2", "100"),
            ("1.50", "1.5"),
            ("00.0150E1", "0.15"),
            ("-12.5e-3", "-0.0125"),
            (".5", "0.5"),
            ("5.", "5"),
            ("10000000000000000000000000000000000000000", "10000000000000000000000000000000000000000"),
            ("99999999999999999999999999999999999999", "99999999999999999999999999999999999999"),
        ] {
            assert_eq!(number(written).to_string(), read, "{written}");
        }
        for wrong in ["", "-", "a", "1a", "1e", "e1", ".", "1..2", "1_000", "1e999999", "1e126", "1e-131", "NaN", " 1"]
        {
            assert!(Number::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Number::parse(&"1".repeat(39)).is_err());
    }

    #[test]
    fn order_and_sums_go_by_value() {
        let ordered = ["-1e100", "-10", "-9", "-0.5", "0", "1e-130", "0.09", "0.1", "1", "1.5", "2", "10", "9e125"];
        for pair in ordered.windows(2) {
            assert!(number(pair[0]) < number(pair[1]), "{pair:?}");
        }
        assert_eq!(number("1.0"), number("10e-1"));
        let sum = |a: &str, b: &str| number(a).add(&number(b)).unwrap().to_string();
        assert_eq!(sum("0.1", "0.2"), "0.3");
        assert_eq!(sum("9", "1"), "10");
        assert_eq!(sum("-5", "5"), "0");
        assert_eq!(sum("1763000000000", "0.001"), "1763000000000.001");
        assert_eq!(number("1").subtract(&number("2.5")).unwrap().to_string(), "-1.5");
        assert_eq!(number("7").subtract(&number("0")).unwrap().to_string(), "7");
        assert!(number("1e100").add(&number("1")).is_err());
        assert!(number("9e125").add(&number("9e125")).is_err());
    }
}
