//! What the payment provider says, booked: the state of an order, its credits, what goes back of them.
//!
//! One transaction for everything a word brings, and for the note that its event was counted. A word that is said again
//! finds the event, or a state that is there already. Words about one payment are carried out one after the other: of a
//! payment and its refund that come at the same moment, the second sees what the first has written.

use async_trait::async_trait;
use std::collections::BTreeSet;

use super::books::{Books, Deal};
use super::bulk;
use super::conn::{Conn, Dialect, Sql, args, sql};
use super::error::Result;
use super::orders;
use super::rows::{self, columns};
use super::writer::Write;
use crate::id::OrderId;
use crate::ledger::Credits;
use crate::purchase::{MoneyBack, Order, OrderStatus, PaymentWord, SessionWord, credits_to_reverse};
use crate::store::{PaymentNotice, Recorded};

#[async_trait]
impl Write for PaymentNotice {
    type Out = Recorded;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Recorded> {
        let intent = match &self.word {
            PaymentWord::Session(word) => word.payment_intent.as_deref(),
            PaymentWord::MoneyBack(back) => Some(back.payment_intent.as_str()),
        };
        if let Some(intent) = intent {
            lock_payment(conn, intent).await?;
        }
        let order = match &self.word {
            PaymentWord::Session(word) => of_session(conn, word).await?,
            PaymentWord::MoneyBack(back) => of_payment(conn, &back.payment_intent).await?,
        };
        if let Some(event) = &self.event {
            let sql = sql!("SELECT order_id FROM payment_events WHERE id = $1");
            if conn.optional(sql, args![&event.id]).await?.is_some() {
                return Ok(Recorded {
                    replayed: true,
                    order,
                    ..Recorded::default()
                });
            }
        }
        let recorded = match (&self.word, order) {
            // Of somebody else's shop in the same account: nothing to keep.
            (PaymentWord::Session(_), None) => return Ok(Recorded::default()),
            (PaymentWord::Session(word), Some(order)) => self.session(conn, word, order).await?,
            (PaymentWord::MoneyBack(back), order) => self.money_back(conn, back, order).await?,
        };
        self.count(conn, &recorded).await?;
        Ok(recorded)
    }
}

impl PaymentNotice {
    async fn session(&self, conn: &mut Conn<'_>, word: &SessionWord, order: Order) -> Result<Recorded> {
        if let Some(trouble) = self.why_not(conn, word, &order).await? {
            return self.in_trouble(conn, order, trouble).await;
        }
        let was = order.status;
        let order = Order {
            status: was.max(word.status),
            session_id: Some(word.session_id.clone()),
            payment_intent: word.payment_intent.clone().or(order.payment_intent),
            paid_at: match word.status {
                OrderStatus::Paid => order.paid_at.or(Some(self.now)),
                _ => order.paid_at,
            },
            ..order
        };
        self.settle(conn, was, order).await
    }

    /// Why a session's word cannot be believed of the order it names.
    async fn why_not(&self, conn: &mut Conn<'_>, word: &SessionWord, order: &Order) -> Result<Option<String>> {
        if let Some(known) = order.session_id.as_ref().filter(|known| **known != word.session_id) {
            let text = format!(
                "session {} claims this order, whose session is {known}",
                word.session_id
            );
            return Ok(Some(text));
        }
        if let Some(mismatch) = word.mismatch(order) {
            return Ok(Some(mismatch));
        }
        let Some(intent) = &word.payment_intent else {
            return Ok(None);
        };
        if let Some(known) = order.payment_intent.as_ref().filter(|known| *known != intent) {
            let text = format!("payment {intent} claims this order, whose payment is {known}");
            return Ok(Some(text));
        }
        let sql = sql!("SELECT id FROM orders WHERE payment_intent = $1 AND id <> $2");
        let other = conn.optional(sql, args![intent, order.id]).await?;
        Ok(match other {
            Some(row) => Some(format!(
                "payment {intent} is that of order {}",
                row.id::<OrderId>("id")?
            )),
            None => None,
        })
    }

    async fn money_back(&self, conn: &mut Conn<'_>, back: &MoneyBack, order: Option<Order>) -> Result<Recorded> {
        let state = if back.void { "void" } else { "valid" };
        let args = args![
            &back.id,
            &back.payment_intent,
            back.kind.as_str(),
            back.amount_minor,
            back.currency.as_str(),
            state,
            self.now,
        ];
        conn.execute(KEEP_REVERSAL, args).await?;
        let Some(order) = order else {
            return Ok(Recorded::default());
        };
        self.settle(conn, order.status, order).await
    }

    /// Books what the order is short of, in both directions, and writes it down. `was` is its state in the database.
    async fn settle(&self, conn: &mut Conn<'_>, was: OrderStatus, mut order: Order) -> Result<Recorded> {
        let sold = match (was, order.status) {
            (OrderStatus::Paid, _) => Credits::ZERO,
            (_, OrderStatus::Paid) => order.credits,
            _ => Credits::ZERO,
        };
        let (mut reversed, mut trouble) = (Credits::ZERO, None);
        if let (OrderStatus::Paid, Some(intent)) = (order.status, &order.payment_intent) {
            let reversals = orders::reversals(conn, intent).await?;
            let target = credits_to_reverse(order.credits, order.price, &reversals);
            reversed = target - order.reversed;
            order.reversed = target;
            let odd = reversals
                .iter()
                .find(|r| !r.void && r.currency != order.price.currency.as_str());
            trouble = odd.map(|r| {
                let (theirs, ours) = (r.currency.to_uppercase(), order.price.currency);
                format!("{} is in {theirs}, the order in {ours}", r.id)
            });
        }
        if sold > Credits::ZERO {
            let sql = sql!("SELECT 1 AS gone FROM users WHERE id = $1 AND deleted_at IS NOT NULL");
            let gone = conn.optional(sql, args![order.user_id]).await?.is_some();
            trouble = trouble.or(gone.then(|| "the buyer has left: send the money back".to_owned()));
        }
        let news = trouble.clone().filter(|_| order.trouble.is_none());
        order.trouble = order.trouble.or(trouble);
        self.book(conn, &order, sold, reversed).await?;
        let sql = sql!(
            "UPDATE orders SET status = $2, session_id = $3, payment_intent = $4, paid_at = $5, reversed = $6, \
             trouble = $7, updated_at = $8 WHERE id = $1"
        );
        let args = args![
            order.id,
            order.status.as_str(),
            &order.session_id,
            &order.payment_intent,
            order.paid_at,
            order.reversed,
            &order.trouble,
            self.now,
        ];
        conn.execute(sql, args).await?;
        Ok(Recorded {
            was: (was != order.status).then_some(was),
            order: Some(order),
            sold,
            reversed,
            trouble: news,
            ..Recorded::default()
        })
    }

    async fn book(&self, conn: &mut Conn<'_>, order: &Order, sold: Credits, reversed: Credits) -> Result<()> {
        if sold == Credits::ZERO && reversed == Credits::ZERO {
            return Ok(());
        }
        let deal = |reason| Deal {
            order_id: order.id,
            reason,
            actor: self.actor,
            now: self.now,
        };
        let mut books = Books::open(conn, &BTreeSet::from([order.user_id])).await?;
        let bought = format!("Bought {} credits for {}", order.credits, order.price);
        books.sell(order.user_id, sold, &deal(&bought))?;
        let back = match reversed > Credits::ZERO {
            true => "Purchase refunded or disputed",
            false => "Refund or dispute of a purchase did not go through",
        };
        if reversed != Credits::ZERO {
            books.reverse(order.user_id, reversed, &deal(back))?;
        }
        bulk::write(conn, &books.into_bulks()?).await
    }

    /// Leaves the order as it is, for an operator. The first trouble stays.
    async fn in_trouble(&self, conn: &mut Conn<'_>, order: Order, trouble: String) -> Result<Recorded> {
        let sql = sql!(concat!(
            "UPDATE orders SET trouble = coalesce(trouble, $2), updated_at = $3 WHERE id = $1 RETURNING ",
            columns!(orders "")
        ));
        let row = conn.one(sql, args![order.id, &trouble, self.now]).await?;
        Ok(Recorded {
            order: Some(rows::order(&row)?),
            // Asked again and again, the same answer is no news.
            trouble: Some(trouble).filter(|_| order.trouble.is_none() || self.event.is_some()),
            ..Recorded::default()
        })
    }

    async fn count(&self, conn: &mut Conn<'_>, recorded: &Recorded) -> Result<()> {
        let Some(event) = &self.event else { return Ok(()) };
        let sql = sql!(
            "INSERT INTO payment_events (id, kind, order_id, outcome, created_at, received_at) \
             VALUES ($1, $2, $3, $4, $5, $6)"
        );
        let args = args![
            &event.id,
            &event.kind,
            recorded.order.as_ref().map(|order| order.id),
            recorded.outcome(),
            event.created_at,
            self.now,
        ];
        conn.execute(sql, args).await?;
        Ok(())
    }
}

/// The largest amount counts, and void stays void: whatever the order of the words, the same row comes out.
const KEEP_REVERSAL: Sql = sql!(
    sqlite: "INSERT INTO payment_reversals (id, payment_intent, kind, amount_minor, currency, state, created_at, updated_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $7) ON CONFLICT (id) DO UPDATE SET \
        amount_minor = max(amount_minor, excluded.amount_minor), \
        state = CASE WHEN state = 'void' OR excluded.state = 'void' THEN 'void' ELSE 'valid' END, \
        updated_at = excluded.updated_at",
    postgres: "INSERT INTO payment_reversals AS r (id, payment_intent, kind, amount_minor, currency, state, created_at, \
        updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $7) ON CONFLICT (id) DO UPDATE SET \
        amount_minor = greatest(r.amount_minor, excluded.amount_minor), \
        state = CASE WHEN r.state = 'void' OR excluded.state = 'void' THEN 'void' ELSE 'valid' END, \
        updated_at = excluded.updated_at",
);

/// One word about a payment at a time; it may be about an order that nobody knows yet, so there is no row to lock.
async fn lock_payment(conn: &mut Conn<'_>, intent: &str) -> Result<()> {
    if conn.dialect() == Dialect::Postgres {
        let sql = sql!(
            sqlite: "",
            postgres: "SELECT pg_advisory_xact_lock(hashtextextended('velro payment ' || $1, 0)) IS NULL AS locked",
        );
        conn.one(sql, args![intent]).await?;
    }
    Ok(())
}

/// The order of a session, locked; before we knew the session's id, the order we made it for.
async fn of_session(conn: &mut Conn<'_>, word: &SessionWord) -> Result<Option<Order>> {
    let sql = sql!(
        sqlite: concat!("SELECT ", columns!(orders ""), " FROM orders WHERE session_id = $1"),
        postgres: concat!("SELECT ", columns!(orders ""), " FROM orders WHERE session_id = $1 FOR NO KEY UPDATE"),
    );
    if let Some(row) = conn.optional(sql, args![&word.session_id]).await? {
        return rows::order(&row).map(Some);
    }
    let Some(id) = word.order_id else { return Ok(None) };
    let sql = sql!(
        sqlite: concat!("SELECT ", columns!(orders ""), " FROM orders WHERE id = $1"),
        postgres: concat!("SELECT ", columns!(orders ""), " FROM orders WHERE id = $1 FOR NO KEY UPDATE"),
    );
    let row = conn.optional(sql, args![id]).await?;
    row.as_ref().map(rows::order).transpose()
}

/// The order of a payment, locked.
async fn of_payment(conn: &mut Conn<'_>, intent: &str) -> Result<Option<Order>> {
    let sql = sql!(
        sqlite: concat!("SELECT ", columns!(orders ""), " FROM orders WHERE payment_intent = $1"),
        postgres: concat!("SELECT ", columns!(orders ""), " FROM orders WHERE payment_intent = $1 FOR NO KEY UPDATE"),
    );
    let row = conn.optional(sql, args![intent]).await?;
    row.as_ref().map(rows::order).transpose()
}
