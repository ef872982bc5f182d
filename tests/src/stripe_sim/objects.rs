//! Sessions, payments, refunds, disputes: their JSON, and what moves them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Book, Refusal, now};

/// Version of the API in events.
const VERSION: &str = "2026-10-28.endive";
/// Parameters of a session that are understood; Stripe refuses others by name.
const KNOWN: &[&str] = &[
    "mode",
    "success_url",
    "cancel_url",
    "client_reference_id",
    "customer_email",
    "expires_at",
    "adaptive_pricing[enabled]",
];

fn text<'v>(value: &'v Value, member: &str) -> &'v str {
    value[member].as_str().unwrap_or_default()
}

impl Book {
    /// An event about an object as it is now.
    pub(super) fn event(&mut self, kind: &str, object: Value) -> Value {
        json!({
            "id": self.id("evt"),
            "object": "event",
            "api_version": VERSION,
            "created": now(),
            "type": kind,
            "livemode": false,
            "pending_webhooks": 1,
            "request": { "id": null, "idempotency_key": null },
            "data": { "object": object },
        })
    }

    pub(super) fn create_session(&mut self, form: &BTreeMap<String, String>) -> Result<Value, Refusal> {
        let get = |name: &str| form.get(name).map(String::as_str).filter(|v| !v.is_empty());
        for name in form.keys() {
            let nested = ["metadata[", "payment_intent_data[metadata][", "line_items["];
            if !KNOWN.contains(&name.as_str()) && !nested.iter().any(|prefix| name.starts_with(prefix)) {
                let message = format!("Received unknown parameter: {name}");
                return Err(Refusal::invalid("parameter_unknown", name, &message));
            }
        }
        for name in ["mode", "success_url", "line_items[0][quantity]"] {
            if get(name).is_none() {
                let message = format!("Missing required param: {name}.");
                return Err(Refusal::invalid("parameter_missing", name, &message));
            }
        }
        let (mut total, mut currency, mut line) = (0, String::new(), 0);
        while let Some(quantity) = get(&format!("line_items[{line}][quantity]")) {
            let price = |name: &str| get(&format!("line_items[{line}][price_data][{name}]"));
            let amount = price("unit_amount").and_then(|a| a.parse::<i64>().ok());
            let (Some(amount), Some(of)) = (amount.filter(|a| *a >= 0), price("currency")) else {
                let param = format!("line_items[{line}][price_data]");
                return Err(Refusal::invalid("parameter_invalid_integer", &param, "Invalid integer"));
            };
            if price("product_data][name").is_none() {
                let param = format!("line_items[{line}][price_data][product_data][name]");
                return Err(Refusal::invalid("parameter_missing", &param, "Missing required param"));
            }
            total += amount * quantity.parse::<i64>().unwrap_or(1);
            currency = of.to_lowercase();
            line += 1;
        }
        let expires = match get("expires_at") {
            None => now() + 86_400,
            Some(at) => at.parse().unwrap_or_default(),
        };
        if !(now() + 1800..=now() + 86_400).contains(&expires) {
            let message =
                "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout Session creation.";
            return Err(Refusal::invalid("", "expires_at", message));
        }
        let metadata: BTreeMap<&str, &str> = form
            .iter()
            .filter_map(|(k, v)| Some((k.strip_prefix("metadata[")?.strip_suffix(']')?, v.as_str())))
            .collect();
        let id = self.id("cs_test");
        let session = json!({
            "id": id,
            "object": "checkout.session",
            "url": format!("https://checkout.stripe.example/c/pay/{id}"),
            "status": "open",
            "payment_status": "unpaid",
            "amount_subtotal": total,
            "amount_total": total,
            "currency": currency,
            "client_reference_id": get("client_reference_id"),
            "customer": null,
            "customer_email": get("customer_email"),
            "payment_intent": null,
            "mode": get("mode"),
            "metadata": metadata,
            "livemode": false,
            "created": now(),
            "expires_at": expires,
            "success_url": get("success_url"),
            "cancel_url": get("cancel_url"),
        });
        self.sessions.push(session.clone());
        Ok(session)
    }

    fn session_mut(&mut self, id: &str) -> &mut Value {
        let found = self.sessions.iter_mut().find(|s| s["id"] == id);
        #[allow(clippy::panic, reason = "a test that names a session that is not there is wrong")]
        found.unwrap_or_else(|| panic!("no session {id}"))
    }

    fn intent_of(&mut self, session: &str) -> String {
        text(self.session_mut(session), "payment_intent").to_owned()
    }

    pub(super) fn complete(&mut self, id: &str, paid: bool) -> Value {
        let (intent, charge) = (self.id("pi"), self.id("ch"));
        let session = self.session_mut(id);
        session["status"] = json!("complete");
        session["payment_status"] = json!(if paid { "paid" } else { "unpaid" });
        session["payment_intent"] = json!(intent);
        session["url"] = Value::Null;
        let session = session.clone();
        self.charges.push(json!({
            "id": charge,
            "object": "charge",
            "amount": session["amount_total"],
            "amount_refunded": 0,
            "currency": session["currency"],
            "payment_intent": intent,
            "paid": paid,
            "refunded": false,
            "livemode": false,
            "created": now(),
        }));
        self.event("checkout.session.completed", session)
    }

    pub(super) fn transfer_ends(&mut self, id: &str, arrived: bool) -> Value {
        let session = self.session_mut(id);
        let kind = match arrived {
            true => {
                session["payment_status"] = json!("paid");
                "checkout.session.async_payment_succeeded"
            }
            false => "checkout.session.async_payment_failed",
        };
        let session = session.clone();
        self.event(kind, session)
    }

    pub(super) fn expire(&mut self, id: &str) -> Value {
        let session = self.session_mut(id);
        session["status"] = json!("expired");
        session["url"] = Value::Null;
        let session = session.clone();
        self.event("checkout.session.expired", session)
    }

    pub(super) fn refund(&mut self, intent: &str, amount: Option<i64>) -> Result<Value, Refusal> {
        let id = self.id("re");
        let charge = self.charges.iter_mut().find(|c| c["payment_intent"] == intent);
        let charge = charge.ok_or_else(|| Refusal::missing("payment_intent", intent))?;
        let number = |v: &Value| v.as_i64().unwrap_or_default();
        let left = number(&charge["amount"]) - number(&charge["amount_refunded"]);
        let amount = amount.unwrap_or(left);
        if amount <= 0 || amount > left {
            let message = format!("Refund amount is greater than unrefunded amount on charge ({left})");
            return Err(Refusal::invalid("charge_already_refunded", "amount", &message));
        }
        charge["amount_refunded"] = json!(number(&charge["amount_refunded"]) + amount);
        charge["refunded"] = json!(charge["amount_refunded"] == charge["amount"]);
        let refund = json!({
            "id": id,
            "object": "refund",
            "amount": amount,
            "charge": charge["id"],
            "currency": charge["currency"],
            "payment_intent": intent,
            "status": "succeeded",
            "created": now(),
            "metadata": {},
        });
        self.refunds.push(refund.clone());
        Ok(refund)
    }

    pub(super) fn refund_of_session(&mut self, session: &str, amount: i64) -> [Value; 2] {
        let intent = self.intent_of(session);
        #[allow(clippy::panic, reason = "a test that refunds what is not there is wrong")]
        let refund = self
            .refund(&intent, Some(amount))
            .unwrap_or_else(|Refusal(_, body)| panic!("{body}"));
        let charge = self.charges.iter().find(|c| c["payment_intent"] == intent.as_str());
        let charge = charge.cloned().unwrap_or_default();
        [
            self.event("refund.created", refund),
            self.event("charge.refunded", charge),
        ]
    }

    pub(super) fn refund_fails(&mut self, session: &str) -> Value {
        let intent = self.intent_of(session);
        let mut refunds = self.refunds.iter_mut().rev();
        let mut failed = Value::Null;
        if let Some(refund) = refunds.find(|r| r["payment_intent"] == intent.as_str()) {
            refund["status"] = json!("failed");
            failed = refund.clone();
        }
        if let Some(charge) = self.charges.iter_mut().find(|c| c["payment_intent"] == intent.as_str()) {
            let back = failed["amount"].as_i64().unwrap_or_default();
            charge["amount_refunded"] = json!(charge["amount_refunded"].as_i64().unwrap_or_default() - back);
            charge["refunded"] = json!(false);
        }
        self.event("refund.failed", failed)
    }

    pub(super) fn dispute(&mut self, session: &str) -> Value {
        let (id, intent) = (self.id("du"), self.intent_of(session));
        let charge = self.charges.iter().find(|c| c["payment_intent"] == intent.as_str());
        let charge = charge.cloned().unwrap_or_default();
        let dispute = json!({
            "id": id,
            "object": "dispute",
            "amount": charge["amount"],
            "charge": charge["id"],
            "currency": charge["currency"],
            "payment_intent": intent,
            "reason": "fraudulent",
            "status": "needs_response",
            "livemode": false,
            "created": now(),
        });
        self.disputes.push(dispute.clone());
        self.event("charge.dispute.created", dispute)
    }

    pub(super) fn dispute_closes(&mut self, session: &str, won: bool) -> Value {
        let intent = self.intent_of(session);
        let mut closed = Value::Null;
        if let Some(dispute) = self
            .disputes
            .iter_mut()
            .find(|d| d["payment_intent"] == intent.as_str())
        {
            dispute["status"] = json!(if won { "won" } else { "lost" });
            closed = dispute.clone();
        }
        self.event("charge.dispute.closed", closed)
    }
}
