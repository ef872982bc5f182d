//! An order: what somebody wants to buy, and what became of it.

use super::money::Money;
use crate::clock::Micros;
use crate::id::{OrderId, UserId};
use crate::ledger::Credits;

/// Who takes the money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Payment {
    /// Stripe Checkout.
    Stripe,
    /// The page of our own that moves no money, for development.
    Sandbox,
}

impl Payment {
    /// The database form.
    pub fn as_str(self) -> &'static str {
        match self {
            Payment::Stripe => "stripe",
            Payment::Sandbox => "sandbox",
        }
    }

    /// Parses the database form.
    pub fn parse(text: &str) -> Option<Payment> {
        [Payment::Stripe, Payment::Sandbox]
            .into_iter()
            .find(|p| p.as_str() == text)
    }
}

/// How far an order is. The order of the states is the order of their words: whatever comes in whatever order, the latest
/// state wins, and `paid` is the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OrderStatus {
    /// Stored; the payment provider may not know of it yet.
    Created,
    /// The buyer can pay.
    Open,
    /// The buyer has done their part, and the money is on its way.
    Processing,
    /// Nobody paid in time, or the buyer turned back.
    Expired,
    /// The payment did not come about.
    Failed,
    /// Paid, and the credits are booked.
    Paid,
}

impl OrderStatus {
    /// All of them.
    pub const ALL: [OrderStatus; 6] = [
        OrderStatus::Created,
        OrderStatus::Open,
        OrderStatus::Processing,
        OrderStatus::Expired,
        OrderStatus::Failed,
        OrderStatus::Paid,
    ];

    /// The database form.
    pub fn as_str(self) -> &'static str {
        match self {
            OrderStatus::Created => "created",
            OrderStatus::Open => "open",
            OrderStatus::Processing => "processing",
            OrderStatus::Expired => "expired",
            OrderStatus::Failed => "failed",
            OrderStatus::Paid => "paid",
        }
    }

    /// Parses the database form.
    pub fn parse(text: &str) -> Option<OrderStatus> {
        OrderStatus::ALL.into_iter().find(|s| s.as_str() == text)
    }

    /// False while a payment is still expected.
    pub fn is_over(self) -> bool {
        matches!(self, OrderStatus::Expired | OrderStatus::Failed | OrderStatus::Paid)
    }
}

/// What somebody wants to buy, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Also the payment provider's reference and idempotency key.
    pub id: OrderId,
    /// Whose.
    pub user_id: UserId,
    /// The package, by the id it had.
    pub package_id: String,
    /// What is given.
    pub credits: Credits,
    /// What is paid.
    pub price: Money,
    /// Who takes the money.
    pub payment: Payment,
    /// Real money, as opposed to the payment provider's test mode.
    pub livemode: bool,
    /// How far it is.
    pub status: OrderStatus,
    /// The payment provider's checkout session, once it is known.
    pub session_id: Option<String>,
    /// The payment provider's payment, once it is known.
    pub payment_intent: Option<String>,
    /// Where the buyer pays, once it is known.
    pub checkout_url: Option<String>,
    /// Credits that refunds and disputes have taken back so far.
    pub reversed: Credits,
    /// Why it needs an operator.
    pub trouble: Option<String>,
    /// The buyer's idempotency key.
    pub idempotency_key: Option<String>,
    /// When it was made.
    pub created_at: Micros,
    /// When it changed last.
    pub updated_at: Micros,
    /// Until when it can be paid.
    pub expires_at: Option<Micros>,
    /// When its credits were booked.
    pub paid_at: Option<Micros>,
}
