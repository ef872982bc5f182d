//! What Stripe knows against what is booked: for webhooks that never came.
//!
//! Sessions of orders that wait are asked for by their ids; those of orders without one are looked for among what was made
//! at that time, by our reference. Of paid orders the refunds and disputes are asked for. What is found is booked like a
//! webhook's word. Stripe keeps no list that would show a session whose order we do not have.

use std::time::Duration;

use super::Payments;
use super::event::Session;
use super::stripe::{Stripe, StripeError};
use crate::clock::{self, Micros};
use crate::id::OrderId;
use crate::purchase::{
    MoneyBack, MoneyBackKind, Order, OrderStatus, Payment, PaymentWord, Reversal, credits_to_reverse,
};
use crate::store::{OrderFilter, OrderRecord, PaymentNotice, StoreError};

/// Orders of one page.
const PAGE: u32 = 200;
/// How far Stripe's clock and ours may differ around the making of a session.
const AROUND: Duration = Duration::from_secs(3600);
/// When an order without a session is one whose call did not end, and not one whose call is under way.
const SETTLED: Duration = Duration::from_secs(300);

/// What was found about one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The order.
    pub order_id: OrderId,
    /// In a sentence.
    pub text: String,
    /// It needs an operator: booking alone did not settle it.
    pub open: bool,
}

/// Told of every order that was looked at: how many so far, and what was found.
pub type Progress<'a> = &'a mut (dyn FnMut(usize, &[Finding]) + Send);

/// Compares the orders made since a moment; with `dry_run` nothing is booked.
///
/// # Errors
///
/// When the store cannot answer. What Stripe does not answer is a finding.
pub async fn run(
    payments: &Payments,
    since: Micros,
    dry_run: bool,
    progress: Progress<'_>,
) -> Result<Vec<Finding>, StoreError> {
    let Some((stripe, livemode)) = payments.stripe() else {
        return Ok(Vec::new());
    };
    let mut comparison = Comparison {
        payments,
        stripe,
        dry_run,
        findings: Vec::new(),
    };
    let (mut before, mut seen) = (None, 0);
    loop {
        let filter = OrderFilter {
            since: Some(since),
            before,
            limit: PAGE,
            ..OrderFilter::default()
        };
        let orders = payments.store().orders(filter).await?;
        let Some(last) = orders.last() else { break };
        before = Some(last.id);
        for order in orders {
            let found = comparison.findings.len();
            if order.payment == Payment::Stripe && order.livemode == livemode {
                comparison.order(order).await?;
            }
            seen += 1;
            progress(seen, &comparison.findings[found..]);
        }
    }
    Ok(comparison.findings)
}

struct Comparison<'a> {
    payments: &'a Payments,
    stripe: &'a Stripe,
    dry_run: bool,
    findings: Vec<Finding>,
}

impl Comparison<'_> {
    fn note(&mut self, order: &Order, text: String, open: bool) {
        self.findings.push(Finding {
            order_id: order.id,
            text,
            open,
        });
    }

    async fn order(&mut self, order: Order) -> Result<(), StoreError> {
        let mut order = order;
        if order.status != OrderStatus::Paid {
            let session = self.session(&order).await;
            let word = match session {
                Ok(Some(session)) => session.word().map_err(|e| StripeError::Unreadable(e.to_string())),
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
            match word {
                Ok(Some(word)) => self.say(&mut order, word).await?,
                Ok(None) => {}
                Err(error) => self.note(&order, format!("its session: {error}"), true),
            }
        }
        if order.status == OrderStatus::Paid && order.payment_intent.is_some() {
            match self.money_back(&order).await {
                Ok(words) => {
                    for word in words {
                        self.say(&mut order, word).await?;
                    }
                }
                Err(error) => self.note(&order, format!("its refunds and disputes: {error}"), true),
            }
        }
        if let Some(trouble) = order.trouble.clone() {
            self.note(&order, format!("needs an operator: {trouble}"), true);
        }
        Ok(())
    }

    /// The order's session as Stripe has it now. One that is over for us is asked for too: a payment may be late.
    async fn session(&self, order: &Order) -> Result<Option<Session>, StripeError> {
        if let Some(id) = &order.session_id {
            return self.stripe.session(id).await.map(Some);
        }
        if clock::now() < order.created_at.plus(SETTLED) {
            return Ok(None);
        }
        let (from, to) = (order.created_at.minus(AROUND), order.created_at.plus(AROUND));
        let sessions = self.stripe.sessions_between(from, to).await?;
        let id = order.id.to_string();
        let ours = |session: &Session| session.client_reference_id.as_deref() == Some(id.as_str());
        Ok(sessions.into_iter().find(ours))
    }

    async fn money_back(&self, order: &Order) -> Result<Vec<PaymentWord>, StripeError> {
        let Some(intent) = &order.payment_intent else {
            return Ok(Vec::new());
        };
        let unreadable = |e: super::event::Unreadable| StripeError::Unreadable(e.to_string());
        let mut words = Vec::new();
        for refund in self.stripe.refunds(intent).await? {
            words.extend(refund.refund(false).map_err(unreadable)?);
        }
        for dispute in self.stripe.disputes(intent).await? {
            words.extend(dispute.dispute(false).map_err(unreadable)?);
        }
        Ok(words)
    }

    /// Books a word, or says what would come of it.
    async fn say(&mut self, order: &mut Order, word: PaymentWord) -> Result<(), StoreError> {
        if self.dry_run {
            let record = self.payments.store().order(order.id).await?;
            if let Some(text) = record.and_then(|record| foreseen(&record, &word)) {
                self.note(order, format!("would change: {text}"), true);
            }
            return Ok(());
        }
        let notice = PaymentNotice {
            word,
            event: None,
            actor: "reconcile",
            now: clock::now(),
        };
        let recorded = self.payments.record(notice).await?;
        let mut texts = Vec::new();
        if let (Some(was), Some(now)) = (recorded.was, &recorded.order) {
            texts.push(format!("was {}, is {}", was.as_str(), now.status.as_str()));
        }
        if recorded.sold.0 > 0 {
            texts.push(format!("{} credits booked", recorded.sold));
        }
        match recorded.reversed.0 {
            0 => {}
            taken @ 1.. => texts.push(format!("{taken} credits taken back")),
            given => texts.push(format!("{} credits given back", -given)),
        }
        if !texts.is_empty() {
            self.note(order, texts.join(", "), false);
        }
        if let Some(now) = recorded.order {
            *order = now;
        }
        Ok(())
    }
}

/// What booking a word would change, without booking it.
fn foreseen(record: &OrderRecord, word: &PaymentWord) -> Option<String> {
    let order = &record.order;
    match word {
        PaymentWord::Session(word) => match word.mismatch(order) {
            Some(mismatch) => Some(mismatch),
            None if word.status > order.status => Some(format!(
                "is {}, Stripe says {}",
                order.status.as_str(),
                word.status.as_str()
            )),
            None => None,
        },
        PaymentWord::MoneyBack(back) => {
            let mut reversals = record.reversals.clone();
            merge(&mut reversals, back);
            let target = credits_to_reverse(order.credits, order.price, &reversals);
            (target != order.reversed).then(|| {
                let kind = match back.kind {
                    MoneyBackKind::Dispute => "dispute",
                    _ => "refund",
                };
                format!(
                    "with {kind} {} {target} credits go back, not {}",
                    back.id, order.reversed
                )
            })
        }
    }
}

/// As the store keeps it.
fn merge(reversals: &mut Vec<Reversal>, back: &MoneyBack) {
    match reversals.iter_mut().find(|r| r.id == back.id) {
        Some(known) => {
            known.amount_minor = known.amount_minor.max(back.amount_minor);
            known.void |= back.void;
        }
        None => reversals.push(Reversal {
            id: back.id.clone(),
            kind: back.kind,
            payment_intent: back.payment_intent.clone(),
            amount_minor: back.amount_minor,
            currency: back.currency.as_str().to_owned(),
            void: back.void,
        }),
    }
}
