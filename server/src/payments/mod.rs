//! Purchases: an order is stored, the payment provider asked for a checkout, and its words are booked.
//!
//! 1. [`Payments::purchase`] stores the order, then asks for the checkout, then notes where it is. Dead in between, the
//!    same call with the same idempotency key goes on: the order is the key at Stripe, which answers the same checkout.
//! 2. Stripe tells by webhook ([`Payments::hear`]), or is asked ([`reconcile`]). Both end in
//!    [`Store::record_payment`], which books a word once.
//! 3. Without Stripe, in development, the checkout is a page of our own ([`sandbox`]), and what is clicked there goes the
//!    same way.

pub mod event;
pub mod reconcile;
pub mod sandbox;
pub mod signature;
pub mod stripe;

use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

use crate::clock::{self, Micros};
use crate::config::{Config, Environment, Secret};
use crate::failpoint;
use crate::id::{OrderId, UserId};
use crate::purchase::{Order, OrderStatus, Package, Payment, PaymentWord};
use crate::store::{
    Checkout, EventHead, IdempotencyKey, NewOrder, OrderMade, PaymentNotice, Recorded, Store, StoreError,
};
use crate::telemetry::Metrics;
use event::{Event, Unreadable};
use sandbox::Sandbox;
use signature::SignatureRefused;
use stripe::{Returns, Stripe, StripeError};

/// How long an order can be paid; less than the day for which Stripe keeps idempotency keys, so that a call that is
/// repeated never makes a second checkout.
pub const OPEN_FOR: Duration = Duration::from_secs(23 * 3600);
/// Stripe wants half an hour between making a checkout and its end.
const LATEST_CHECKOUT: Duration = Duration::from_secs(22 * 3600);
/// When an order that no payment provider heard of is ended.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(25 * 3600);

/// Who takes the money.
enum Till {
    Stripe {
        stripe: Box<Stripe>,
        livemode: bool,
        webhook_secrets: Vec<Secret>,
    },
    Sandbox(Box<Sandbox>),
    Nobody,
}

/// Purchases of one server.
pub struct Payments {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    till: Till,
    packages: Vec<Package>,
}

/// What a buyer asks for.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Purchase<'a> {
    pub user_id: UserId,
    pub package: &'a Package,
    pub returns: Returns,
    pub idempotency: Option<IdempotencyKey>,
}

/// An order that can be paid, or could.
#[derive(Debug, Clone)]
pub struct Bought {
    /// The order.
    pub order: Order,
    /// It was made by an earlier call with the same idempotency key.
    pub replayed: bool,
}

/// Why nothing can be bought.
#[derive(Debug, Error)]
pub enum PurchaseRefused {
    /// No payment provider is configured.
    #[error("no payment provider is configured")]
    NotConfigured,
    /// The key belongs to another call.
    #[error("the idempotency key was used for another call")]
    KeyReused,
    /// The buyer is suspended.
    #[error("the buyer is suspended")]
    Suspended,
    /// There is no such buyer.
    #[error("there is no such buyer")]
    NoSuchUser,
    /// The payment provider did not take it; the order waits for the call to be repeated.
    #[error("{0}")]
    Provider(#[from] StripeError),
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Booked, or known already.
    Recorded(&'static str),
    /// Of no interest, or about somebody else's sale.
    Ignored,
}

/// Why a webhook is not accepted.
#[derive(Debug, Error)]
pub enum HookRefused {
    /// Stripe is not configured, or no signing secret is.
    #[error("no endpoint for Stripe is configured")]
    NotConfigured,
    /// Not Stripe.
    #[error(transparent)]
    Signature(#[from] SignatureRefused),
    /// Signed, but not an event we can read.
    #[error("the event cannot be read: {0}")]
    Unreadable(#[from] Unreadable),
    /// Test money for real orders, or the other way round.
    #[error("the event is of the other mode (live or test) than the configured key")]
    Mode,
    /// The store could not answer: it has to be sent again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Payments {
    /// By the configuration.
    ///
    /// # Errors
    ///
    /// When TLS cannot be set up.
    pub fn new(config: &Config, store: Arc<dyn Store>, metrics: Arc<Metrics>) -> anyhow::Result<Payments> {
        let till = match (&config.payments.stripe, config.environment) {
            (Some(stripe), _) => Till::Stripe {
                stripe: Box::new(Stripe::new(stripe)?),
                livemode: stripe.livemode,
                webhook_secrets: stripe.webhook_secrets.clone(),
            },
            // Never anywhere else: whoever can click there gives themselves credits.
            (None, Environment::Development) => {
                Till::Sandbox(Box::new(Sandbox::new(&config.jwt_secret, &config.public_url)))
            }
            (None, Environment::Production) => Till::Nobody,
        };
        Ok(Payments {
            store,
            metrics,
            till,
            packages: config.payments.packages.clone(),
        })
    }

    /// What can be bought.
    pub fn packages(&self) -> &[Package] {
        &self.packages
    }

    /// Who takes the money; `None` when nothing can be bought.
    pub fn payment(&self) -> Option<Payment> {
        match self.till {
            Till::Stripe { .. } => Some(Payment::Stripe),
            Till::Sandbox(_) => Some(Payment::Sandbox),
            Till::Nobody => None,
        }
    }

    /// The page of our own, where it is the till.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        match &self.till {
            Till::Sandbox(sandbox) => Some(sandbox),
            _ => None,
        }
    }

    /// Stripe and the mode of its key, where it is the till.
    pub fn stripe(&self) -> Option<(&Stripe, bool)> {
        match &self.till {
            Till::Stripe { stripe, livemode, .. } => Some((stripe, *livemode)),
            _ => None,
        }
    }

    /// The store everything is booked in.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Orders a package and gives the page where it is paid. With an idempotency key it may be called again, whatever
    /// happened in between.
    ///
    /// # Errors
    ///
    /// [`PurchaseRefused`].
    pub async fn purchase(&self, purchase: Purchase<'_>) -> Result<Bought, PurchaseRefused> {
        let (payment, livemode) = match &self.till {
            Till::Stripe { livemode, .. } => (Payment::Stripe, *livemode),
            Till::Sandbox(_) => (Payment::Sandbox, false),
            Till::Nobody => return Err(PurchaseRefused::NotConfigured),
        };
        let order = NewOrder {
            id: OrderId::new(),
            user_id: purchase.user_id,
            package_id: purchase.package.id.clone(),
            credits: purchase.package.credits,
            price: purchase.package.price,
            payment,
            livemode,
            idempotency: purchase.idempotency,
            now: clock::now(),
        };
        let (order, replayed) = match self.store.create_order(order).await? {
            OrderMade::New(order) => (order, false),
            OrderMade::Replayed(order) => (order, true),
            OrderMade::KeyReused => return Err(PurchaseRefused::KeyReused),
            OrderMade::Suspended => return Err(PurchaseRefused::Suspended),
            OrderMade::NoSuchUser => return Err(PurchaseRefused::NoSuchUser),
        };
        self.metrics.order(if replayed { "replayed" } else { "created" });
        failpoint::at("payments::ordered");
        // A till that was changed since does not take over what it did not make.
        let is_ours = order.payment == payment && order.livemode == livemode;
        let in_time = clock::now() < order.created_at.plus(LATEST_CHECKOUT);
        if order.status != OrderStatus::Created || order.checkout_url.is_some() || !is_ours || !in_time {
            return Ok(Bought {
                order: *order,
                replayed,
            });
        }
        let checkout = self.checkout(&order, purchase.package, &purchase.returns).await;
        let checkout = checkout.inspect_err(|error| {
            self.metrics.order("unavailable");
            tracing::error!(order_id = %order.id, error = %error, "no checkout for an order");
        })?;
        failpoint::at("payments::checkout_made");
        let opened = self.store.open_order(checkout).await?;
        Ok(Bought {
            order: opened.unwrap_or(*order),
            replayed,
        })
    }

    async fn checkout(&self, order: &Order, package: &Package, returns: &Returns) -> Result<Checkout, StripeError> {
        let expires_at = order.created_at.plus(OPEN_FOR);
        let (session_id, checkout_url) = match &self.till {
            Till::Stripe { stripe, .. } => {
                let session = stripe.create_session(order, package, returns, expires_at).await?;
                let missing = || StripeError::Unreadable("the session has no url".to_owned());
                (session.id, session.url.ok_or_else(missing)?)
            }
            Till::Sandbox(sandbox) => sandbox.checkout(order.id, returns, expires_at),
            Till::Nobody => return Err(StripeError::Unavailable("it is not configured".to_owned())),
        };
        Ok(Checkout {
            order_id: order.id,
            session_id,
            checkout_url,
            expires_at,
            now: clock::now(),
        })
    }

    /// A webhook of Stripe: checked, and booked before it is answered.
    ///
    /// # Errors
    ///
    /// [`HookRefused`]; nothing is stored then.
    pub async fn hear(&self, header: &str, body: &[u8]) -> Result<Heard, HookRefused> {
        let Till::Stripe {
            livemode,
            webhook_secrets,
            ..
        } = &self.till
        else {
            return Err(HookRefused::NotConfigured);
        };
        if webhook_secrets.is_empty() {
            return Err(HookRefused::NotConfigured);
        }
        let now = clock::now();
        let read = signature::verify(header, body, webhook_secrets, now)
            .map_err(HookRefused::from)
            .and_then(|()| Ok(Event::read(body)?))
            .and_then(|event| match event.livemode == *livemode {
                true => Ok((event.word()?, event)),
                false => Err(HookRefused::Mode),
            });
        let (word, event) = read.inspect_err(|refused| {
            self.metrics.payment_event("unknown", "refused", None);
            tracing::warn!(reason = %refused, "webhook of Stripe refused");
        })?;
        let (Some(kind), Some(word)) = (event.known_kind(), word) else {
            self.metrics.payment_event("other", "ignored", None);
            return Ok(Heard::Ignored);
        };
        // A refund may come before its payment, a session never before its order.
        let is_money_back = matches!(word, PaymentWord::MoneyBack(_));
        let notice = PaymentNotice {
            word,
            event: Some(EventHead {
                id: event.id.clone(),
                kind: event.kind.clone(),
                created_at: event.created_at(),
            }),
            actor: "stripe",
            now,
        };
        failpoint::at("payments::heard");
        let recorded = self.record(notice).await.inspect_err(|_| {
            self.metrics.payment_event(kind, "error", None);
        })?;
        failpoint::at("payments::recorded");
        if recorded.order.is_none() && !is_money_back {
            self.metrics.payment_event(kind, "ignored", None);
            return Ok(Heard::Ignored);
        }
        let outcome = recorded.outcome();
        self.metrics
            .payment_event(kind, outcome, Some(now.after(event.created_at())));
        Ok(Heard::Recorded(outcome))
    }

    /// Books a word, and says in log and metrics what came of it.
    ///
    /// # Errors
    ///
    /// When the store cannot answer.
    pub async fn record(&self, notice: PaymentNotice) -> Result<Recorded, StoreError> {
        let event_id = notice.event.as_ref().map(|e| e.id.clone()).unwrap_or_default();
        let recorded = self.store.record_payment(notice).await?;
        let order_id = recorded.order.as_ref().map(|o| o.id.to_string()).unwrap_or_default();
        if recorded.sold.0 > 0 {
            self.metrics.order("booked");
        }
        if let Some(trouble) = &recorded.trouble {
            tracing::error!(order_id, event_id, trouble, "a payment needs an operator");
        } else if recorded.is_news() {
            let (sold, reversed) = (recorded.sold.0, recorded.reversed.0);
            tracing::info!(order_id, event_id, sold, reversed, "payment booked");
        }
        Ok(recorded)
    }

    /// Ends orders that no payment provider heard of; to be called now and then.
    ///
    /// # Errors
    ///
    /// When the store cannot answer.
    pub async fn forget_old(&self, now: Micros) -> Result<u64, StoreError> {
        self.store.expire_orders(now.minus(FORGOTTEN_AFTER), now).await
    }
}
