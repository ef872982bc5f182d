//! Orders, and what a payment provider says about them.

use crate::clock::Micros;
use crate::id::{OrderId, UserId};
use crate::ledger::Credits;
use crate::purchase::{Money, Order, OrderStatus, Payment, PaymentWord, Reversal};

use super::IdempotencyKey;

/// To store an order.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct NewOrder {
    pub id: OrderId,
    pub user_id: UserId,
    pub package_id: String,
    pub credits: Credits,
    pub price: Money,
    pub payment: Payment,
    pub livemode: bool,
    /// With a key, the same call makes one order.
    pub idempotency: Option<IdempotencyKey>,
    pub now: Micros,
}

/// What became of a [`NewOrder`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderMade {
    /// Stored.
    New(Box<Order>),
    /// The key was used for the same call; this is its order.
    Replayed(Box<Order>),
    /// The key was used for another call.
    KeyReused,
    /// The buyer is suspended.
    Suspended,
    /// There is no such buyer.
    NoSuchUser,
}

/// Where an order can be paid.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Checkout {
    pub order_id: OrderId,
    pub session_id: String,
    pub checkout_url: String,
    pub expires_at: Micros,
    pub now: Micros,
}

/// Which orders.
#[derive(Debug, Clone, Default)]
pub struct OrderFilter {
    /// Only of this buyer.
    pub user_id: Option<UserId>,
    /// Only in this state.
    pub status: Option<OrderStatus>,
    /// Only what needs an operator.
    pub trouble: bool,
    /// Only what was made at or after this moment.
    pub since: Option<Micros>,
    /// Only what is older than this one: the last of the page before.
    pub before: Option<OrderId>,
    /// How many at most.
    pub limit: u32,
}

/// An event of the payment provider that was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CountedEvent {
    pub id: String,
    pub kind: String,
    /// What came of it, in a few words.
    pub outcome: String,
    /// By the provider's clock.
    pub created_at: Micros,
    pub received_at: Micros,
}

/// An order with everything that was said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderRecord {
    /// The order.
    pub order: Order,
    /// Oldest first.
    pub events: Vec<CountedEvent>,
    /// Money that went back or is disputed.
    pub reversals: Vec<Reversal>,
}

/// The event that brought a word.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct EventHead {
    pub id: String,
    pub kind: String,
    /// By the provider's clock.
    pub created_at: Micros,
}

/// A word of the payment provider, to be booked.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct PaymentNotice {
    pub word: PaymentWord,
    /// `None` when we asked instead of being told.
    pub event: Option<EventHead>,
    /// Who books, for the transfers: `stripe`, `sandbox`, `reconcile`.
    pub actor: &'static str,
    pub now: Micros,
}

/// What came of a [`PaymentNotice`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recorded {
    /// The event had been counted before; nothing was done.
    pub replayed: bool,
    /// The order it is about, as it is now; `None` when it is nobody's (yet).
    pub order: Option<Order>,
    /// The state it was in before, when that has changed.
    pub was: Option<OrderStatus>,
    /// Credits that were booked as bought.
    pub sold: Credits,
    /// Credits taken back (above zero) or given back after all (below zero).
    pub reversed: Credits,
    /// Why an operator has to look; new with this word.
    pub trouble: Option<String>,
}

impl Recorded {
    /// In a few words, for the operator's list of events and for metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            Recorded { replayed: true, .. } => "replayed",
            Recorded { trouble: Some(_), .. } => "trouble",
            Recorded { order: None, .. } => "kept",
            Recorded { sold, .. } if *sold != Credits::ZERO => "booked",
            Recorded { reversed, .. } if *reversed > Credits::ZERO => "taken back",
            Recorded { reversed, .. } if *reversed < Credits::ZERO => "given back",
            Recorded { was: Some(_), .. } => "moved",
            _ => "nothing new",
        }
    }

    /// True when it changed an order.
    pub fn is_news(&self) -> bool {
        self.was.is_some() || self.sold != Credits::ZERO || self.reversed != Credits::ZERO || self.trouble.is_some()
    }
}
