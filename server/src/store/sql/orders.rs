//! Orders: made, opened for payment, listed, ended when nobody ever heard of them. What is paid is in [`super::payments`].

use async_trait::async_trait;
use serde_json::json;
use uuid::Uuid;

use super::audit;
use super::conn::{Conn, Row, args, sql};
use super::error::Result;
use super::rows::{self, columns};
use super::writer::Write;
use crate::clock::Micros;
use crate::id::OrderId;
use crate::purchase::{MoneyBackKind, Order, OrderStatus, Reversal};
use crate::store::{By, Checkout, CountedEvent, NewOrder, OrderFilter, OrderMade, OrderRecord};

#[async_trait]
impl Write for NewOrder {
    type Out = OrderMade;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<OrderMade> {
        let sql = sql!("SELECT suspended_at, deleted_at FROM users WHERE id = $1");
        let Some(user) = conn.optional(sql, args![self.user_id]).await? else {
            return Ok(OrderMade::NoSuchUser);
        };
        if user.optional_micros("deleted_at")?.is_some() {
            return Ok(OrderMade::NoSuchUser);
        }
        let suspended = user.optional_micros("suspended_at")?.is_some();
        // Of two at once the constraint refuses one, which is tried again and finds the other's.
        if let Some(idempotency) = &self.idempotency {
            let sql = sql!(concat!(
                "SELECT fingerprint, ",
                columns!(orders ""),
                " FROM orders WHERE user_id = $1 AND idempotency_key = $2"
            ));
            if let Some(row) = conn.optional(sql, args![self.user_id, &idempotency.key]).await? {
                let fingerprint: Option<String> = row.get("fingerprint")?;
                let order = rows::order(&row)?;
                return Ok(match fingerprint.as_deref() == Some(idempotency.fingerprint.as_str()) {
                    // It has no payment page yet, and gets none.
                    true if suspended && order.status == OrderStatus::Created => OrderMade::Suspended,
                    true => OrderMade::Replayed(Box::new(order)),
                    false => OrderMade::KeyReused,
                });
            }
        }
        if suspended {
            return Ok(OrderMade::Suspended);
        }
        let sql = sql!(concat!(
            "INSERT INTO orders (id, user_id, package_id, credits, amount_minor, currency, payment, livemode, status, \
             idempotency_key, fingerprint, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'created', $9, $10, $11, $11) RETURNING ",
            columns!(orders "")
        ));
        let args = args![
            self.id,
            self.user_id,
            &self.package_id,
            self.credits,
            self.price.amount_minor,
            self.price.currency.as_str(),
            self.payment.as_str(),
            self.livemode,
            self.idempotency.as_ref().map(|i| i.key.as_str()),
            self.idempotency.as_ref().map(|i| i.fingerprint.as_str()),
            self.now,
        ];
        let row = conn.one(sql, args).await?;
        Ok(OrderMade::New(Box::new(rows::order(&row)?)))
    }
}

#[async_trait]
impl Write for Checkout {
    type Out = Option<Order>;

    /// The provider's word may have been faster than its answer: what it brought stays.
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Option<Order>> {
        let sql = sql!(concat!(
            "UPDATE orders SET session_id = coalesce(session_id, $2), checkout_url = coalesce(checkout_url, $3), \
             expires_at = coalesce(expires_at, $4), \
             status = CASE status WHEN 'created' THEN 'open' ELSE status END, updated_at = $5 WHERE id = $1 RETURNING ",
            columns!(orders "")
        ));
        let args = args![
            self.order_id,
            &self.session_id,
            &self.checkout_url,
            self.expires_at,
            self.now,
        ];
        let row = conn.optional(sql, args).await?;
        row.as_ref().map(rows::order).transpose()
    }
}

/// Ends what no provider heard of in time, and what nobody paid on the page of our own.
pub(super) struct Expire {
    pub(super) made_before: Micros,
    pub(super) now: Micros,
}

#[async_trait]
impl Write for Expire {
    type Out = u64;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<u64> {
        let sql = sql!(
            "UPDATE orders SET status = 'expired', updated_at = $2 \
             WHERE (status = 'created' AND id < $3 AND session_id IS NULL AND created_at < $1) \
             OR (status = 'open' AND id < $3 AND payment = 'sandbox' AND expires_at < $2)"
        );
        conn.execute(sql, args![self.made_before, self.now, first_id_at(self.made_before)])
            .await
    }
}

/// Ids begin with the time they were made at: younger orders need not be looked at.
fn first_id_at(time: Micros) -> OrderId {
    OrderId::from(Uuid::from_u128(u128::from(time.millis()) << 80))
}

/// Runs in a transaction, so that the parts fit.
pub(super) async fn record(conn: &mut Conn<'_>, id: OrderId) -> Result<Option<OrderRecord>> {
    let sql = sql!(concat!("SELECT ", columns!(orders ""), " FROM orders WHERE id = $1"));
    let Some(row) = conn.optional(sql, args![id]).await? else {
        return Ok(None);
    };
    let order = rows::order(&row)?;
    let sql = sql!(
        "SELECT id, kind, outcome, created_at, received_at FROM payment_events WHERE order_id = $1 \
         ORDER BY received_at, id"
    );
    let events = conn.all(sql, args![id]).await?;
    let reversals = match &order.payment_intent {
        Some(intent) => reversals(conn, intent).await?,
        None => Vec::new(),
    };
    Ok(Some(OrderRecord {
        order,
        events: events.iter().map(counted_event).collect::<Result<_>>()?,
        reversals,
    }))
}

fn counted_event(row: &Row) -> Result<CountedEvent> {
    Ok(CountedEvent {
        id: row.get("id")?,
        kind: row.get("kind")?,
        outcome: row.get("outcome")?,
        created_at: row.micros("created_at")?,
        received_at: row.micros("received_at")?,
    })
}

/// What went back of a payment.
pub(super) async fn reversals(conn: &mut Conn<'_>, intent: &str) -> Result<Vec<Reversal>> {
    let sql = sql!(
        "SELECT id, kind, payment_intent, amount_minor, currency, state FROM payment_reversals \
         WHERE payment_intent = $1 ORDER BY id"
    );
    let rows = conn.all(sql, args![intent]).await?;
    let reversal = |row: &Row| {
        Ok(Reversal {
            id: row.get("id")?,
            kind: row.parsed("kind", MoneyBackKind::parse)?,
            payment_intent: row.get("payment_intent")?,
            amount_minor: row.get("amount_minor")?,
            currency: row.get("currency")?,
            void: row.get::<String>("state")? == "void",
        })
    };
    rows.iter().map(reversal).collect()
}

/// The rest of a list's conditions, after the one about the buyer.
macro_rules! listed {
    (sqlite: $buyer:literal) => {
        concat!("SELECT ", columns!(orders ""), " FROM orders WHERE ", $buyer, " AND ($2 IS NULL OR status = $2) \
            AND (NOT $3 OR trouble IS NOT NULL) AND id < $4 AND ($5 IS NULL OR created_at >= $5) \
            ORDER BY id DESC LIMIT $6")
    };
    (postgres: $buyer:literal) => {
        concat!("SELECT ", columns!(orders ""), " FROM orders WHERE ", $buyer, " AND ($2::text IS NULL OR status = $2) \
            AND (NOT $3 OR trouble IS NOT NULL) AND id < $4 AND ($5::timestamptz IS NULL OR created_at >= $5) \
            ORDER BY id DESC LIMIT $6")
    };
}

/// Newest first. A buyer's are found by their index, all of them by their ids.
pub(super) async fn list(conn: &mut Conn<'_>, filter: &OrderFilter) -> Result<Vec<Order>> {
    let sql = match filter.user_id {
        Some(_) => sql!(sqlite: listed!(sqlite: "user_id = $1"), postgres: listed!(postgres: "user_id = $1")),
        None => sql!(sqlite: listed!(sqlite: "$1 IS NULL"), postgres: listed!(postgres: "$1::uuid IS NULL")),
    };
    let args = args![
        filter.user_id,
        filter.status.map(|s| s.as_str()),
        filter.trouble,
        filter.before.unwrap_or(OrderId::from(Uuid::max())),
        filter.since,
        filter.limit,
    ];
    let rows = conn.all(sql, args).await?;
    rows.iter().map(rows::order).collect()
}

/// An operator has looked after an order in trouble.
pub(super) struct SettleOrder {
    pub(super) id: OrderId,
    pub(super) by: By,
}

#[async_trait]
impl Write for SettleOrder {
    type Out = Option<(Order, bool)>;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Option<(Order, bool)>> {
        let sql = sql!(
            sqlite: concat!("SELECT ", columns!(orders ""), " FROM orders WHERE id = $1"),
            postgres: concat!("SELECT ", columns!(orders ""), " FROM orders WHERE id = $1 FOR NO KEY UPDATE"),
        );
        let Some(row) = conn.optional(sql, args![self.id]).await? else {
            return Ok(None);
        };
        let mut order = rows::order(&row)?;
        let Some(trouble) = order.trouble.take() else {
            return Ok(Some((order, false)));
        };
        let sql = sql!("UPDATE orders SET trouble = NULL, updated_at = $2 WHERE id = $1");
        conn.execute(sql, args![self.id, self.by.now]).await?;
        order.updated_at = self.by.now;
        let details = json!({"before": {"trouble": trouble}, "after": {"trouble": null}});
        audit::write(conn, &self.by, "order.settle", &self.id.to_string(), &details).await?;
        Ok(Some((order, true)))
    }
}
