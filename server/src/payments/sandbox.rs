//! The till of a development server: a page of our own that moves no money. What is clicked there is booked like a word of
//! Stripe's. The link is the permission: it is signed and holds as long as the order is open.

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::stripe::Returns;
use crate::clock::Micros;
use crate::config::Secret;
use crate::id::OrderId;
use crate::purchase::{Order, OrderStatus, Payment, PaymentWord, SessionWord};
use crate::store::{EventHead, PaymentNotice};

/// What the key derived from the server's secret is for; another purpose gets another key.
const PURPOSE: &[u8] = b"velro sandbox checkout, version 1";

/// Makes and checks the links of the page.
pub struct Sandbox {
    key: Key,
    public_url: String,
}

/// What the buyer clicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Click {
    /// Pay.
    Pay,
    /// The card is declined.
    Decline,
    /// Turn back.
    Cancel,
}

impl Click {
    /// Parses the value of the button.
    pub fn parse(text: &str) -> Option<Click> {
        match text {
            "pay" => Some(Click::Pay),
            "decline" => Some(Click::Decline),
            "cancel" => Some(Click::Cancel),
            _ => None,
        }
    }

    fn status(self) -> OrderStatus {
        match self {
            Click::Pay => OrderStatus::Paid,
            Click::Decline => OrderStatus::Failed,
            Click::Cancel => OrderStatus::Expired,
        }
    }
}

impl Sandbox {
    pub(super) fn new(secret: &Secret, public_url: &str) -> Sandbox {
        let root = Key::new(HMAC_SHA256, secret.expose().as_bytes());
        Sandbox {
            key: Key::new(HMAC_SHA256, hmac::sign(&root, PURPOSE).as_ref()),
            public_url: public_url.to_owned(),
        }
    }

    /// The session's id and the page of an order.
    pub(super) fn checkout(&self, order: OrderId, returns: &Returns, expires_at: Micros) -> (String, String) {
        let session = format!("sandbox_{order}");
        let payload = [
            expires_at.seconds().to_string(),
            returns.success_url.replace("{CHECKOUT_SESSION_ID}", &session),
            returns.cancel_url.replace("{CHECKOUT_SESSION_ID}", &session),
        ];
        let payload = payload.join("\n");
        let tag = hmac::sign(&self.key, &message(order, &payload));
        let token = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(&payload),
            URL_SAFE_NO_PAD.encode(tag.as_ref())
        );
        let url = format!(
            "{}/api/v1/credits/sandbox-checkout/{order}?token={token}",
            self.public_url
        );
        (session, url)
    }

    /// Where the buyer goes afterwards; `None` when the token is not ours, not of this order, or over.
    pub fn open(&self, order: OrderId, token: &str, now: Micros) -> Option<Returns> {
        let (payload, tag) = token.split_once('.')?;
        let payload = String::from_utf8(URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        hmac::verify(&self.key, &message(order, &payload), &tag).ok()?;
        let mut parts = payload.split('\n');
        let expires: i64 = parts.next()?.parse().ok()?;
        let returns = Returns {
            success_url: parts.next()?.to_owned(),
            cancel_url: parts.next()?.to_owned(),
        };
        (now.seconds() < expires).then_some(returns)
    }

    /// A click as a word to be booked. The same click again is the same event.
    pub fn notice(&self, order: &Order, click: Click, now: Micros) -> PaymentNotice {
        let status = click.status();
        PaymentNotice {
            word: PaymentWord::Session(SessionWord {
                payment: Payment::Sandbox,
                livemode: false,
                session_id: format!("sandbox_{}", order.id),
                order_id: Some(order.id),
                payment_intent: (click == Click::Pay).then(|| format!("sandbox_pi_{}", order.id)),
                status,
                total: Some(order.price),
            }),
            event: Some(EventHead {
                id: format!("sandbox_{}_{}", status.as_str(), order.id),
                kind: format!("sandbox.{}", status.as_str()),
                created_at: now,
            }),
            actor: "sandbox",
            now,
        }
    }
}

/// No part of a URL holds a line break, so that no two orders and payloads give the same text.
fn message(order: OrderId, payload: &str) -> Vec<u8> {
    format!("{order}\n{payload}").into_bytes()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_link_holds_for_its_order_and_its_time() {
        let sandbox = Sandbox::new(&Secret::new("secret"), "http://here");
        let (order, returns) = (
            OrderId::new(),
            Returns {
                success_url: "https://app/ok?s={CHECKOUT_SESSION_ID}".into(),
                cancel_url: "https://app/no".into(),
            },
        );
        let (session, url) = sandbox.checkout(order, &returns, Micros(2_000_000));
        let token = url.split_once("token=").unwrap().1;
        let opened = sandbox.open(order, token, Micros(1_999_999)).unwrap();
        assert_eq!(opened.success_url, format!("https://app/ok?s={session}"));
        assert_eq!(sandbox.open(order, token, Micros(2_000_000)), None);
        assert_eq!(sandbox.open(OrderId::new(), token, Micros(0)), None);
        let other = Sandbox::new(&Secret::new("other"), "http://here");
        assert_eq!(other.open(order, token, Micros(0)), None);
        for bad in ["", ".", "a.b", &token[1..], &format!("{token}x")] {
            assert_eq!(sandbox.open(order, bad, Micros(0)), None, "{bad}");
        }
    }
}
