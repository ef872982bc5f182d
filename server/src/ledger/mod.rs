//! Money: integer credits, accounts, transfers, holds. Pure rules; the stores carry them out.
//!
//! A **transfer** moves credits between two accounts and is never changed. A **hold** keeps the price of a generation
//! aside while it runs; its one **settlement** captures what was delivered and releases the rest. A user's
//! **statement** is the projection people see: a `usage` line when a generation is accepted, a `refund` line for what
//! is released, so that the sum of the lines is always the available balance.
//!
//! Invariants, checked by `velro ledger verify`:
//! - the balance of an account is the sum of its transfers; all balances sum to zero;
//! - `held` of an account is the sum of its unsettled holds; `balance - held + debt >= 0` for users, and there is a debt only
//!   where a purchase was reversed after it was spent;
//! - a user's available balance (`balance - held`) is the sum of the statement lines;
//! - every terminal generation has exactly one settlement, and `captured + released` is the hold.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};

/// An amount of credits. Never a float.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Credits(pub i64);

impl Credits {
    /// Nothing.
    pub const ZERO: Credits = Credits(0);
}

impl fmt::Display for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Add for Credits {
    type Output = Credits;
    fn add(self, other: Credits) -> Credits {
        Credits(self.0 + other.0)
    }
}

impl Sub for Credits {
    type Output = Credits;
    fn sub(self, other: Credits) -> Credits {
        Credits(self.0 - other.0)
    }
}

impl Neg for Credits {
    type Output = Credits;
    fn neg(self) -> Credits {
        Credits(-self.0)
    }
}

impl AddAssign for Credits {
    fn add_assign(&mut self, other: Credits) {
        self.0 += other.0;
    }
}

impl SubAssign for Credits {
    fn sub_assign(&mut self, other: Credits) {
        self.0 -= other.0;
    }
}

impl Sum for Credits {
    fn sum<I: Iterator<Item = Credits>>(iter: I) -> Credits {
        Credits(iter.map(|c| c.0).sum())
    }
}

/// The platform's own accounts; a user's account is named by the user's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Platform {
    /// Source of start credits and of what operators give away.
    Grants,
    /// Source of what users buy.
    Purchases,
    /// Where captured holds go.
    Revenue,
    /// Source of what is given back after a capture.
    Refunds,
}

impl Platform {
    /// All of them; every store creates these accounts with its schema.
    pub const ALL: [Platform; 4] = [
        Platform::Grants,
        Platform::Purchases,
        Platform::Revenue,
        Platform::Refunds,
    ];

    /// The account's id in the store.
    pub fn account(self) -> &'static str {
        match self {
            Platform::Grants => "platform:grants",
            Platform::Purchases => "platform:purchases",
            Platform::Revenue => "platform:revenue",
            Platform::Refunds => "platform:refunds",
        }
    }
}

/// The contract's `transaction_type` of a statement line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineType {
    /// Bought.
    Purchase,
    /// Spent on a generation.
    Usage,
    /// Given back.
    Refund,
    /// Start credits and grants.
    Bonus,
}

impl LineType {
    /// All types, for filters and their error messages.
    pub const ALL: [LineType; 4] = [LineType::Purchase, LineType::Usage, LineType::Refund, LineType::Bonus];

    /// The wire and database form.
    pub fn as_str(self) -> &'static str {
        match self {
            LineType::Purchase => "purchase",
            LineType::Usage => "usage",
            LineType::Refund => "refund",
            LineType::Bonus => "bonus",
        }
    }

    /// Parses the wire form.
    pub fn parse(text: &str) -> Option<LineType> {
        LineType::ALL.into_iter().find(|t| t.as_str() == text)
    }
}

/// What a user account holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance {
    /// Sum of the account's transfers.
    pub balance: Credits,
    /// Set aside for running generations.
    pub held: Credits,
    /// How far a reversed purchase has taken [`Balance::available`] below zero; nothing else may.
    pub debt: Credits,
}

impl Balance {
    /// What can be spent, and what a person is shown; below zero by exactly the debt.
    pub fn available(self) -> Credits {
        self.balance - self.held
    }

    /// The debt that is left: what is missing to zero.
    pub fn missing(self) -> Credits {
        Credits((-self.available().0).max(0))
    }
}

/// How a hold ends. `captured + released` is always the hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// Moves to the platform's revenue.
    pub captured: Credits,
    /// Becomes available to the user again.
    pub released: Credits,
}

impl Settlement {
    /// Captures `delivered`, but never more than was held and never less than nothing.
    pub fn of(held: Credits, delivered: Credits) -> Settlement {
        let captured = delivered.clamp(Credits::ZERO, held.max(Credits::ZERO));
        Settlement {
            captured,
            released: held - captured,
        }
    }
}

/// Decides a batch of spends in arrival order: for each (account, amount), whether the account can still afford it
/// after the earlier ones of the batch. `available` is keyed by the caller's account index.
pub fn spend_in_order(available: &mut [Credits], spends: &[(usize, Credits)]) -> Vec<bool> {
    spends
        .iter()
        .map(|&(account, amount)| {
            let left = &mut available[account];
            let affordable = amount >= Credits::ZERO && *left >= amount;
            if affordable {
                *left -= amount;
            }
            affordable
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_settlement_never_captures_more_than_was_held(held in 0i64..10_000, delivered in -10i64..20_000) {
            let s = Settlement::of(Credits(held), Credits(delivered));
            prop_assert!(s.captured >= Credits::ZERO && s.captured <= Credits(held));
            prop_assert_eq!(s.captured + s.released, Credits(held));
        }

        #[test]
        fn a_batch_spends_like_one_after_the_other(
            start in proptest::collection::vec(0i64..100, 3),
            spends in proptest::collection::vec((0usize..3, 0i64..40), 0..40),
        ) {
            let mut batch: Vec<Credits> = start.iter().map(|&c| Credits(c)).collect();
            let spends: Vec<(usize, Credits)> = spends.into_iter().map(|(a, c)| (a, Credits(c))).collect();
            let decided = spend_in_order(&mut batch, &spends);
            let mut naive = start.clone();
            for (i, &(account, amount)) in spends.iter().enumerate() {
                let ok = naive[account] >= amount.0;
                if ok { naive[account] -= amount.0; }
                prop_assert_eq!(decided[i], ok);
            }
            prop_assert_eq!(batch, naive.into_iter().map(Credits).collect::<Vec<_>>());
        }
    }
}
