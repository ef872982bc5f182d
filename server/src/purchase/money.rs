//! Amounts of real money: integers in the smallest unit of their currency, as payment providers count. No floats.

use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// Currencies without a smaller unit.
const ZERO_DECIMAL: &[&str] = &[
    "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf",
];

/// Currencies whose smallest unit is a thousandth; the last digit must be 0.
const THREE_DECIMAL: &[&str] = &["bhd", "jod", "kwd", "omr", "tnd"];

/// Currencies without a smaller unit that Stripe counts in hundredths all the same.
const WHOLE_IN_HUNDREDTHS: &[&str] = &["isk", "ugx"];

/// Largest amount, in the smallest unit: Stripe takes eight digits.
const MAX_MINOR: i64 = 99_999_999;

/// A currency by its code of three letters, lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

/// Why a text is no price.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MoneyFault {
    /// Not a code of three letters.
    #[error("`currency` is \"{0}\"; write a code of three letters such as \"usd\"")]
    Currency(String),
    /// Not a number with the right count of decimals.
    #[error("`price` is \"{0}\"; write a decimal text such as \"{1}\"")]
    Number(String, &'static str),
    /// Too many digits behind the point for the currency.
    #[error("`price` \"{price}\" has more than {most} decimals; {currency} has {most}")]
    Decimals {
        /// As written.
        price: String,
        /// Decimals the currency has.
        most: u32,
        /// The currency.
        currency: Currency,
    },
    /// The currency is counted in larger steps.
    #[error("`price` \"{0}\" is not a multiple of the smallest amount that can be charged in {1}; {2}")]
    Step(String, Currency, &'static str),
    /// Zero, or more than a payment provider takes.
    #[error("`price` \"{0}\" is not between the smallest unit and 99,999,999 of them")]
    Range(String),
}

impl Currency {
    /// Parses a code; upper case is understood.
    pub fn parse(text: &str) -> Option<Currency> {
        let bytes: [u8; 3] = text.as_bytes().try_into().ok()?;
        bytes
            .iter()
            .all(u8::is_ascii_alphabetic)
            .then(|| Currency(bytes.map(|b| b.to_ascii_lowercase())))
    }

    /// `usd`.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("???")
    }

    /// Digits behind the point, as the payment provider counts.
    pub fn decimals(self) -> u32 {
        match self.as_str() {
            code if ZERO_DECIMAL.contains(&code) => 0,
            code if THREE_DECIMAL.contains(&code) => 3,
            _ => 2,
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_str().to_ascii_uppercase())
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> String {
        currency.as_str().to_owned()
    }
}

impl TryFrom<String> for Currency {
    type Error = MoneyFault;

    fn try_from(text: String) -> Result<Currency, MoneyFault> {
        Currency::parse(&text).ok_or(MoneyFault::Currency(text))
    }
}

/// An amount of a currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Money {
    /// In the currency's smallest unit, as the payment provider counts.
    pub amount_minor: i64,
    /// Of what.
    pub currency: Currency,
}

impl Money {
    /// A price as an operator writes it: `9.99`, or `1200` in a currency without decimals.
    ///
    /// # Errors
    ///
    /// [`MoneyFault`] says what to write instead.
    pub fn parse(price: &str, currency: &str) -> Result<Money, MoneyFault> {
        let currency = Currency::parse(currency).ok_or_else(|| MoneyFault::Currency(currency.to_owned()))?;
        let decimals = currency.decimals();
        let example = match decimals {
            0 => "1200",
            3 => "9.990",
            _ => "9.99",
        };
        let wrong = || MoneyFault::Number(price.to_owned(), example);
        let (whole, part) = match price.split_once('.') {
            Some((_, "")) => return Err(wrong()),
            Some((whole, part)) => (whole, part),
            None => (price, ""),
        };
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(part) {
            return Err(wrong());
        }
        if part.len() > decimals as usize {
            return Err(MoneyFault::Decimals {
                price: price.to_owned(),
                most: decimals,
                currency,
            });
        }
        let padded = format!("{whole}{part:0<width$}", width = decimals as usize);
        let amount_minor: i64 = padded.parse().map_err(|_| MoneyFault::Range(price.to_owned()))?;
        if !(1..=MAX_MINOR).contains(&amount_minor) {
            return Err(MoneyFault::Range(price.to_owned()));
        }
        let step = match currency.as_str() {
            code if WHOLE_IN_HUNDREDTHS.contains(&code) => (100, "write a whole number"),
            code if THREE_DECIMAL.contains(&code) => (10, "the last of three decimals must be 0"),
            _ => (1, ""),
        };
        match amount_minor % step.0 {
            0 => Ok(Money { amount_minor, currency }),
            _ => Err(MoneyFault::Step(price.to_owned(), currency, step.1)),
        }
    }

    /// The number alone: `9.99`.
    pub fn number(self) -> String {
        let decimals = self.currency.decimals() as usize;
        if decimals == 0 {
            return self.amount_minor.to_string();
        }
        let digits = format!("{:0>width$}", self.amount_minor, width = decimals + 1);
        let (whole, part) = digits.split_at(digits.len() - decimals);
        format!("{whole}.{part}")
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number(), self.currency)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn minor(price: &str, currency: &str) -> i64 {
        Money::parse(price, currency)
            .unwrap_or_else(|e| panic!("{e}"))
            .amount_minor
    }

    #[test]
    fn prices_become_the_smallest_unit_without_floats() {
        for (price, currency, expected) in [
            ("9.99", "usd", 999),
            ("0.29", "eur", 29),
            ("1.1", "USD", 110),
            ("10", "usd", 1000),
            ("4.35", "gbp", 435),
            ("500", "jpy", 500),
            ("1.230", "kwd", 1230),
            ("500", "isk", 50_000),
            ("999999.99", "usd", 99_999_999),
        ] {
            assert_eq!(minor(price, currency), expected, "{price} {currency}");
        }
    }

    #[test]
    fn what_is_no_price_is_told_what_to_write() {
        for (price, currency, sentence) in [
            ("9.999", "usd", "`price` \"9.999\" has more than 2 decimals; USD has 2"),
            ("5.00", "jpy", "`price` \"5.00\" has more than 0 decimals; JPY has 0"),
            ("9,99", "usd", "write a decimal text such as \"9.99\""),
            ("-1", "usd", "write a decimal text"),
            ("1e3", "usd", "write a decimal text"),
            ("9.", "usd", "write a decimal text"),
            (".5", "usd", "write a decimal text"),
            ("", "usd", "write a decimal text"),
            ("0", "usd", "is not between the smallest unit"),
            ("1000000", "usd", "is not between the smallest unit"),
            ("99999999999999999999", "usd", "is not between the smallest unit"),
            ("1", "dollar", "`currency` is \"dollar\"; write a code of three letters"),
            ("1.231", "kwd", "the last of three decimals must be 0"),
            ("5.50", "isk", "write a whole number"),
        ] {
            let fault = Money::parse(price, currency).unwrap_err().to_string();
            assert!(fault.contains(sentence), "{price} {currency}: {fault}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_what_was_written(amount in 1i64..=MAX_MINOR, zero in any::<bool>()) {
            let currency = Currency::parse(if zero { "jpy" } else { "usd" }).unwrap();
            let money = Money { amount_minor: amount, currency };
            prop_assert_eq!(Money::parse(&money.number(), currency.as_str()), Ok(money));
        }
    }
}
