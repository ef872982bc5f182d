//! What a payment provider says about payments, and what follows for the credits.
//!
//! Its messages come late, twice and in any order. So each is a fact that is kept or a state that only moves forward
//! ([`OrderStatus`]), and what is booked is computed from all that is known: the end depends on what was said, not on when.

use super::money::{Currency, Money};
use super::order::{Order, OrderStatus, Payment};
use crate::id::OrderId;
use crate::ledger::Credits;

/// A fact from the payment provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentWord {
    /// About a checkout session.
    Session(SessionWord),
    /// About money that goes back or is disputed.
    MoneyBack(MoneyBack),
}

/// What became of a checkout session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionWord {
    /// Who says it.
    pub payment: Payment,
    /// Real money.
    pub livemode: bool,
    /// The session.
    pub session_id: String,
    /// The order it was made for, as we told the provider. A hint for the time before we knew the session's id.
    pub order_id: Option<OrderId>,
    /// The payment, once there is one.
    pub payment_intent: Option<String>,
    /// The state it brings the order to: [`OrderStatus::Processing`] or later.
    pub status: OrderStatus,
    /// What was asked of the buyer in all; `None` when the provider does not say.
    pub total: Option<Money>,
}

impl SessionWord {
    /// Why this word cannot be believed of `order`.
    pub fn mismatch(&self, order: &Order) -> Option<String> {
        if self.payment != order.payment {
            let (said, ours) = (self.payment.as_str(), order.payment.as_str());
            return Some(format!("session {} is of {said}, the order of {ours}", self.session_id));
        }
        if self.livemode != order.livemode {
            let mode = |live| if live { "live" } else { "test" };
            return Some(format!(
                "session {} is in {} mode, the order in {} mode",
                self.session_id,
                mode(self.livemode),
                mode(order.livemode)
            ));
        }
        match self.total {
            Some(total) if total == order.price => None,
            Some(total) => Some(format!(
                "session {} was about {total}, the order about {}",
                self.session_id, order.price
            )),
            None => Some(format!("session {} does not say what was paid", self.session_id)),
        }
    }
}

/// What a [`MoneyBack`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MoneyBackKind {
    /// One refund.
    Refund,
    /// All refunds of one charge together.
    RefundedTotal,
    /// A dispute, for as long as the buyer's bank keeps the money.
    Dispute,
}

impl MoneyBackKind {
    /// The database form.
    pub fn as_str(self) -> &'static str {
        match self {
            MoneyBackKind::Refund => "refund",
            MoneyBackKind::RefundedTotal => "refunded_total",
            MoneyBackKind::Dispute => "dispute",
        }
    }

    /// Parses the database form.
    pub fn parse(text: &str) -> Option<MoneyBackKind> {
        [
            MoneyBackKind::Refund,
            MoneyBackKind::RefundedTotal,
            MoneyBackKind::Dispute,
        ]
        .into_iter()
        .find(|k| k.as_str() == text)
    }
}

/// Money that goes back or is disputed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoneyBack {
    /// The provider's id of the refund, the charge or the dispute.
    pub id: String,
    /// What it is about.
    pub kind: MoneyBackKind,
    /// The payment it belongs to.
    pub payment_intent: String,
    /// How much, in the smallest unit.
    pub amount_minor: i64,
    /// Of what.
    pub currency: Currency,
    /// It did not happen after all: a refund that failed, a dispute that was won. It stays so.
    pub void: bool,
}

/// A [`MoneyBack`] as it is kept: the largest amount that was said, and void once it was said to be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Reversal {
    pub id: String,
    pub kind: MoneyBackKind,
    pub payment_intent: String,
    pub amount_minor: i64,
    pub currency: String,
    pub void: bool,
}

/// How many of an order's credits its reversals take back, all of them together.
///
/// The money that went back is the larger of two views of the refunds (what the charge says less what failed of it, and
/// the refunds one by one) and the disputes, and never more than was paid. The credits are its share, rounded down: a
/// fraction of a credit stays with the buyer. Reversals in another currency do not count.
pub fn credits_to_reverse(credits: Credits, price: Money, reversals: &[Reversal]) -> Credits {
    let sum = |kind: MoneyBackKind, void: bool| {
        let of_kind = reversals
            .iter()
            .filter(|r| r.kind == kind && r.void == void && r.currency == price.currency.as_str());
        of_kind.map(|r| i128::from(r.amount_minor)).sum::<i128>()
    };
    let (refunds, failed) = (sum(MoneyBackKind::Refund, false), sum(MoneyBackKind::Refund, true));
    let total = sum(MoneyBackKind::RefundedTotal, false) - failed;
    let paid = i128::from(price.amount_minor);
    let back = (refunds.max(total) + sum(MoneyBackKind::Dispute, false)).clamp(0, paid);
    let share = i128::from(credits.0) * back / paid.max(1);
    Credits(i64::try_from(share).unwrap_or(credits.0).min(credits.0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn reversal(kind: MoneyBackKind, amount_minor: i64, void: bool) -> Reversal {
        Reversal {
            id: format!("{}_{amount_minor}", kind.as_str()),
            kind,
            payment_intent: "pi".into(),
            amount_minor,
            currency: "usd".into(),
            void,
        }
    }

    #[test]
    fn the_share_that_went_back_is_taken_back_rounded_down() {
        use MoneyBackKind::{Dispute, Refund, RefundedTotal};
        let price = Money {
            amount_minor: 999,
            currency: Currency::parse("usd").unwrap(),
        };
        for (reversals, expected) in [
            (vec![], 0),
            (vec![reversal(Refund, 500, false)], 500),
            (vec![reversal(Refund, 1, false)], 1),
            // One refund seen from both sides counts once.
            (
                vec![reversal(Refund, 500, false), reversal(RefundedTotal, 500, false)],
                500,
            ),
            // The charge knows of a second one.
            (
                vec![reversal(Refund, 300, false), reversal(RefundedTotal, 500, false)],
                500,
            ),
            // A refund that failed is out of both views.
            (
                vec![reversal(Refund, 500, true), reversal(RefundedTotal, 500, false)],
                0,
            ),
            (vec![reversal(Refund, 999, false)], 1000),
            (vec![reversal(Dispute, 999, false), reversal(Refund, 999, false)], 1000),
            (vec![reversal(Dispute, 999, true)], 0),
            (vec![reversal(Refund, 5000, false)], 1000),
            (
                vec![Reversal {
                    currency: "eur".into(),
                    ..reversal(Refund, 999, false)
                }],
                0,
            ),
        ] {
            assert_eq!(
                credits_to_reverse(Credits(1000), price, &reversals).0,
                expected,
                "{reversals:?}"
            );
        }
        let huge = Money {
            amount_minor: 99_999_999,
            ..price
        };
        let all = [reversal(Refund, i64::MAX, false)];
        assert_eq!(credits_to_reverse(Credits(i64::MAX), huge, &all).0, i64::MAX);
    }
}
