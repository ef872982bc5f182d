//! Stripe's events and objects, read into words the store can book. What is not read is not trusted: neither metadata nor
//! descriptions decide anything.

use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::clock::Micros;
use crate::id::OrderId;
use crate::purchase::{Currency, Money, MoneyBack, MoneyBackKind, OrderStatus, Payment, PaymentWord, SessionWord};

/// The types that Velro books; subscribe an endpoint to these. (`docs/PURCHASES.md` has the list.)
pub const KINDS: &[&str] = &[
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "checkout.session.expired",
    "charge.refunded",
    "charge.refund.updated",
    "refund.created",
    "refund.updated",
    "refund.failed",
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
    "charge.dispute.closed",
];

/// Why an event that Stripe signed cannot be read.
#[derive(Debug, Error)]
pub enum Unreadable {
    /// No JSON, or a member is missing or of another type.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// Not an event of this API (a thin event of version 2, for example).
    #[error("it is of type \"{0}\", not \"event\": choose snapshot events for the endpoint")]
    NoEvent(String),
    /// A currency of other than three letters.
    #[error("\"{0}\" is no currency")]
    Currency(String),
}

/// An event before its object is read.
#[derive(Debug, Deserialize)]
pub struct Event<'a> {
    /// `evt_...`.
    pub id: String,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: String,
    /// Seconds since the Unix epoch.
    created: i64,
    /// Real money.
    pub livemode: bool,
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Debug, Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    object: &'a RawValue,
}

/// An id, or the object itself where it was asked to be expanded.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Reference {
    Id(String),
    Object { id: String },
}

impl Reference {
    fn into_id(self) -> String {
        match self {
            Reference::Id(id) | Reference::Object { id } => id,
        }
    }
}

/// A checkout session, as far as we read it.
#[derive(Debug, Deserialize)]
pub struct Session {
    /// `cs_...`.
    pub id: String,
    /// Where to pay, while it is open.
    pub url: Option<String>,
    /// `open`, `complete` or `expired`.
    #[serde(default)]
    pub status: Option<String>,
    payment_status: String,
    amount_total: Option<i64>,
    currency: Option<String>,
    /// What we called it.
    pub client_reference_id: Option<String>,
    payment_intent: Option<Reference>,
    livemode: bool,
    /// Seconds since the Unix epoch.
    #[serde(default)]
    pub expires_at: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Charge {
    id: String,
    payment_intent: Option<Reference>,
    amount_refunded: i64,
    currency: String,
}

/// A refund or a dispute.
#[derive(Debug, Deserialize)]
pub struct Back {
    id: String,
    payment_intent: Option<Reference>,
    amount: i64,
    currency: String,
    status: Option<String>,
}

impl<'a> Event<'a> {
    /// Reads the frame of an event.
    ///
    /// # Errors
    ///
    /// [`Unreadable`].
    pub fn read(body: &'a [u8]) -> Result<Event<'a>, Unreadable> {
        #[derive(Deserialize)]
        struct Kind {
            #[serde(default)]
            object: String,
        }
        let Kind { object } = serde_json::from_slice(body)?;
        if object != "event" {
            return Err(Unreadable::NoEvent(object));
        }
        Ok(serde_json::from_slice(body)?)
    }

    /// When it happened, by Stripe's clock.
    pub fn created_at(&self) -> Micros {
        Micros(self.created.saturating_mul(1_000_000))
    }

    /// The type as a word with bounded cardinality.
    pub fn known_kind(&self) -> Option<&'static str> {
        KINDS.iter().copied().find(|kind| *kind == self.kind)
    }

    /// What it says of payments; `None` when it says nothing that is booked.
    ///
    /// # Errors
    ///
    /// [`Unreadable`].
    pub fn word(&self) -> Result<Option<PaymentWord>, Unreadable> {
        let object = self.data.object.get();
        let session = |status: fn(&Session) -> Option<OrderStatus>| -> Result<_, Unreadable> {
            let session: Session = serde_json::from_str(object)?;
            match status(&session) {
                Some(status) => Ok(Some(PaymentWord::Session(session.into_word(status)?))),
                None => Ok(None),
            }
        };
        match self.kind.as_str() {
            "checkout.session.completed" => session(|s| Some(s.completed())),
            "checkout.session.async_payment_succeeded" => session(|s| Some(s.completed())),
            "checkout.session.async_payment_failed" => session(|_| Some(OrderStatus::Failed)),
            "checkout.session.expired" => session(|_| Some(OrderStatus::Expired)),
            "charge.refunded" => {
                let charge: Charge = serde_json::from_str(object)?;
                let back = Back {
                    id: charge.id,
                    payment_intent: charge.payment_intent,
                    amount: charge.amount_refunded,
                    currency: charge.currency,
                    status: None,
                };
                back.into_word(MoneyBackKind::RefundedTotal, false)
            }
            "charge.refund.updated" | "refund.created" | "refund.updated" | "refund.failed" => {
                serde_json::from_str::<Back>(object)?.refund(self.kind == "refund.failed")
            }
            "charge.dispute.created"
            | "charge.dispute.updated"
            | "charge.dispute.funds_withdrawn"
            | "charge.dispute.closed" => serde_json::from_str::<Back>(object)?.dispute(false),
            "charge.dispute.funds_reinstated" => serde_json::from_str::<Back>(object)?.dispute(true),
            _ => Ok(None),
        }
    }
}

impl Session {
    /// What a completed session brings its order to.
    fn completed(&self) -> OrderStatus {
        match self.payment_status.as_str() {
            "paid" | "no_payment_required" => OrderStatus::Paid,
            // The money is on its way, or a state of the future: nothing is booked before it is paid.
            _ => OrderStatus::Processing,
        }
    }

    /// What the session as it is now says; `None` while it is open.
    ///
    /// # Errors
    ///
    /// [`Unreadable`].
    pub fn word(self) -> Result<Option<PaymentWord>, Unreadable> {
        let status = match self.status.as_deref() {
            Some("complete") => self.completed(),
            Some("expired") => OrderStatus::Expired,
            _ => return Ok(None),
        };
        Ok(Some(PaymentWord::Session(self.into_word(status)?)))
    }

    fn into_word(self, status: OrderStatus) -> Result<SessionWord, Unreadable> {
        let total = match (self.amount_total, self.currency) {
            (Some(amount_minor), Some(currency)) => Some(Money {
                amount_minor,
                currency: Currency::parse(&currency).ok_or(Unreadable::Currency(currency))?,
            }),
            _ => None,
        };
        Ok(SessionWord {
            payment: Payment::Stripe,
            livemode: self.livemode,
            session_id: self.id,
            order_id: self.client_reference_id.and_then(|id| id.parse::<OrderId>().ok()),
            payment_intent: self.payment_intent.map(Reference::into_id),
            status,
            total,
        })
    }
}

impl Back {
    /// Stripe's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// As a refund.
    ///
    /// # Errors
    ///
    /// [`Unreadable`].
    pub fn refund(self, failed: bool) -> Result<Option<PaymentWord>, Unreadable> {
        let void = failed || matches!(self.status.as_deref(), Some("failed" | "canceled"));
        self.into_word(MoneyBackKind::Refund, void)
    }

    /// As a dispute. An inquiry (`warning_...`) has moved no money: it counts when it ends, and then as nothing.
    ///
    /// # Errors
    ///
    /// [`Unreadable`].
    pub fn dispute(self, reinstated: bool) -> Result<Option<PaymentWord>, Unreadable> {
        let status = self.status.as_deref().unwrap_or_default();
        let void = reinstated || matches!(status, "won" | "warning_closed" | "prevented");
        if !void && status.starts_with("warning_") {
            return Ok(None);
        }
        self.into_word(MoneyBackKind::Dispute, void)
    }

    /// Whatever has no payment intent was not bought through Checkout.
    fn into_word(self, kind: MoneyBackKind, void: bool) -> Result<Option<PaymentWord>, Unreadable> {
        let Some(intent) = self.payment_intent else {
            return Ok(None);
        };
        Ok(Some(PaymentWord::MoneyBack(MoneyBack {
            id: self.id,
            kind,
            payment_intent: intent.into_id(),
            amount_minor: self.amount.max(0),
            currency: Currency::parse(&self.currency).ok_or(Unreadable::Currency(self.currency))?,
            void,
        })))
    }
}
