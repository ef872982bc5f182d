//! Purchases: orders, what the payment provider says in every order and any number of times, and what cannot be believed.

use super::Stage;
use super::fixtures::*;
use futures_util::stream::{self, StreamExt as _};
use std::collections::BTreeMap;
use std::sync::Arc;
use velro::id::{OrderId, UserId};
use velro::ledger::Credits;
use velro::purchase::{
    Currency, Money, MoneyBack, MoneyBackKind, Order, OrderStatus, Payment, PaymentWord, SessionWord,
};
use velro::store::{
    Checkout, EventHead, IdempotencyKey, NewOrder, OrderFilter, OrderMade, PaymentNotice, Recorded, Store,
};

/// What every order of the suite costs, in cents, and gives.
const CENTS: i64 = 1000;
const CREDITS: i64 = 100;

fn usd(amount_minor: i64) -> Money {
    let currency = Currency::parse("usd").unwrap();
    Money { amount_minor, currency }
}

fn new_order(user: UserId) -> NewOrder {
    NewOrder {
        id: OrderId::new(),
        user_id: user,
        package_id: "starter".into(),
        credits: Credits(CREDITS),
        price: usd(CENTS),
        payment: Payment::Stripe,
        livemode: false,
        idempotency: None,
        now: at(10),
    }
}

async fn made(store: &dyn Store, order: NewOrder) -> Order {
    match store.create_order(order).await.unwrap() {
        OrderMade::New(order) => *order,
        other => panic!("{other:?}"),
    }
}

fn session_of(order: OrderId) -> String {
    format!("cs_{order}")
}

fn intent_of(order: OrderId) -> String {
    format!("pi_{order}")
}

/// An order that waits for its payment.
async fn opened(store: &dyn Store, user: UserId) -> Order {
    let order = made(store, new_order(user)).await;
    let checkout = Checkout {
        order_id: order.id,
        session_id: session_of(order.id),
        checkout_url: "https://pay.example/x".into(),
        expires_at: at(1000),
        now: at(11),
    };
    store.open_order(checkout).await.unwrap().unwrap()
}

fn session(order: OrderId, status: OrderStatus) -> SessionWord {
    SessionWord {
        payment: Payment::Stripe,
        livemode: false,
        session_id: session_of(order),
        order_id: Some(order),
        payment_intent: (status != OrderStatus::Expired).then(|| intent_of(order)),
        status,
        total: Some(usd(CENTS)),
    }
}

fn back(order: OrderId, kind: MoneyBackKind, id: &str, amount_minor: i64, void: bool) -> PaymentWord {
    PaymentWord::MoneyBack(MoneyBack {
        id: format!("{id}_{order}"),
        kind,
        payment_intent: intent_of(order),
        amount_minor,
        currency: Currency::parse("usd").unwrap(),
        void,
    })
}

fn notice(event: &str, word: impl Into<Word>) -> PaymentNotice {
    PaymentNotice {
        word: word.into().0,
        event: Some(EventHead {
            id: event.to_owned(),
            kind: "a.kind".into(),
            created_at: at(20),
        }),
        actor: "stripe",
        now: at(30),
    }
}

struct Word(PaymentWord);

impl From<SessionWord> for Word {
    fn from(word: SessionWord) -> Self {
        Word(PaymentWord::Session(word))
    }
}

impl From<PaymentWord> for Word {
    fn from(word: PaymentWord) -> Self {
        Word(word)
    }
}

async fn say(store: &dyn Store, event: &str, word: impl Into<Word>) -> Recorded {
    store.record_payment(notice(event, word)).await.unwrap()
}

async fn order(store: &dyn Store, id: OrderId) -> Order {
    store.order(id).await.unwrap().unwrap().order
}

pub async fn an_order_is_made_once_per_key(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 0).await.id;
    let keyed = |user, fingerprint: &str| NewOrder {
        idempotency: Some(IdempotencyKey {
            key: "k".into(),
            fingerprint: fingerprint.into(),
        }),
        ..new_order(user)
    };
    let calls = (0..8).map(|_| store.create_order(keyed(user, "a")));
    let answers = futures_util::future::join_all(calls).await;
    let mut ids: Vec<OrderId> = answers
        .into_iter()
        .map(|made| match made.unwrap() {
            OrderMade::New(order) | OrderMade::Replayed(order) => order.id,
            other => panic!("{other:?}"),
        })
        .collect();
    ids.dedup();
    assert_eq!(ids.len(), 1, "one key, one order");
    let other = store.create_order(keyed(user, "b")).await.unwrap();
    assert_eq!(other, OrderMade::KeyReused);
    let neighbour = somebody(&*store, 0).await.id;
    assert_ne!(made(&*store, keyed(neighbour, "b")).await.id, ids[0]);
    let nobody = store.create_order(new_order(UserId::new())).await.unwrap();
    assert_eq!(nobody, OrderMade::NoSuchUser);
    in_order(&*store).await;
}

pub async fn orders_are_opened_listed_and_ended(stage: &dyn Stage) {
    let store = stage.open().await;
    let (ada, bob) = (somebody(&*store, 0).await.id, somebody(&*store, 0).await.id);
    let first = opened(&*store, ada).await;
    assert_eq!(
        (first.status, first.session_id),
        (OrderStatus::Open, Some(session_of(first.id)))
    );
    let second = made(&*store, new_order(ada)).await;
    let bobs = made(
        &*store,
        NewOrder {
            now: at(500),
            ..new_order(bob)
        },
    )
    .await;
    let list = async |filter: OrderFilter| {
        let orders = store.orders(OrderFilter { limit: 10, ..filter }).await.unwrap();
        orders.into_iter().map(|o| o.id).collect::<Vec<_>>()
    };
    let of_ada = OrderFilter {
        user_id: Some(ada),
        ..OrderFilter::default()
    };
    assert_eq!(list(OrderFilter::default()).await, [bobs.id, second.id, first.id]);
    assert_eq!(list(of_ada.clone()).await, [second.id, first.id]);
    assert_eq!(
        list(OrderFilter {
            before: Some(second.id),
            ..of_ada.clone()
        })
        .await,
        [first.id]
    );
    let created = OrderFilter {
        status: Some(OrderStatus::Created),
        ..of_ada
    };
    assert_eq!(list(created).await, [second.id]);
    assert_eq!(
        list(OrderFilter {
            since: Some(at(400)),
            ..OrderFilter::default()
        })
        .await,
        [bobs.id]
    );

    // Only what nobody ever heard of ends by itself.
    assert_eq!(store.expire_orders(at(400), at(600)).await.unwrap(), 1);
    assert_eq!(order(&*store, second.id).await.status, OrderStatus::Expired);
    assert_eq!(order(&*store, first.id).await.status, OrderStatus::Open);
    assert_eq!(order(&*store, bobs.id).await.status, OrderStatus::Created);
    assert!(store.order(OrderId::new()).await.unwrap().is_none());
    // On the page of our own nobody else says that the time is over.
    let sandbox = NewOrder {
        payment: Payment::Sandbox,
        now: at(500),
        ..new_order(bob)
    };
    let sandbox = made(&*store, sandbox).await.id;
    let checkout = Checkout {
        order_id: sandbox,
        session_id: session_of(sandbox),
        checkout_url: "http://here/x".into(),
        expires_at: at(700),
        now: at(500),
    };
    store.open_order(checkout).await.unwrap().unwrap();
    for (now, ended) in [(700, 0), (701, 1)] {
        assert_eq!(store.expire_orders(at(0), at(now)).await.unwrap(), ended);
    }
    assert_eq!(order(&*store, first.id).await.status, OrderStatus::Open);
    in_order(&*store).await;
}

pub async fn a_payment_is_booked_once(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 0).await.id;
    let id = opened(&*store, user).await.id;
    let paid = say(&*store, "evt_1", session(id, OrderStatus::Paid)).await;
    assert_eq!(
        (paid.sold, paid.was, paid.outcome()),
        (Credits(CREDITS), Some(OrderStatus::Open), "booked")
    );
    assert!(say(&*store, "evt_1", session(id, OrderStatus::Paid)).await.replayed);
    let again = say(&*store, "evt_2", session(id, OrderStatus::Paid)).await;
    assert_eq!((again.sold, again.is_news()), (Credits(0), false));
    // Asked instead of told.
    let asked = PaymentNotice {
        event: None,
        ..notice("", session(id, OrderStatus::Paid))
    };
    assert!(!store.record_payment(asked).await.unwrap().is_news());
    assert_eq!(amounts(&*store, user).await, [("purchase", CREDITS, CREDITS)]);
    let record = store.order(id).await.unwrap().unwrap();
    let outcomes: Vec<_> = record
        .events
        .iter()
        .map(|e| (e.id.as_str(), e.outcome.as_str()))
        .collect();
    assert_eq!(outcomes, [("evt_1", "booked"), ("evt_2", "nothing new")]);
    assert_eq!(
        (record.order.status, record.order.paid_at),
        (OrderStatus::Paid, Some(at(30)))
    );
    in_order(&*store).await;
}

/// The provider's word may come before we have stored its answer to our own request.
pub async fn a_payment_may_be_faster_than_our_own_note(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 0).await.id;
    let id = made(&*store, new_order(user)).await.id;
    assert_eq!(
        say(&*store, "evt", session(id, OrderStatus::Paid)).await.sold,
        Credits(CREDITS)
    );
    let checkout = Checkout {
        order_id: id,
        session_id: session_of(id),
        checkout_url: "https://pay.example/x".into(),
        expires_at: at(1000),
        now: at(40),
    };
    assert_eq!(
        store.open_order(checkout).await.unwrap().unwrap().status,
        OrderStatus::Paid
    );
    assert_eq!(money(&*store, user).await, (CREDITS, 0));
    in_order(&*store).await;
}

pub async fn no_word_undoes_a_payment(stage: &dyn Stage) {
    let store = stage.open().await;
    for end in [OrderStatus::Processing, OrderStatus::Expired, OrderStatus::Failed] {
        let user = somebody(&*store, 0).await.id;
        let (early, late) = (opened(&*store, user).await.id, opened(&*store, user).await.id);
        say(&*store, &format!("a{end:?}"), session(early, OrderStatus::Paid)).await;
        say(&*store, &format!("b{end:?}"), session(early, end)).await;
        // A payment that comes when the order was given up still counts.
        say(&*store, &format!("c{end:?}"), session(late, end)).await;
        assert_eq!(order(&*store, late).await.status, end);
        say(&*store, &format!("d{end:?}"), session(late, OrderStatus::Paid)).await;
        for id in [early, late] {
            assert_eq!(order(&*store, id).await.status, OrderStatus::Paid, "{end:?}");
        }
        assert_eq!(money(&*store, user).await, (2 * CREDITS, 0));
    }
    in_order(&*store).await;
}

/// Makes a word of a session say what is not so.
type Lie = fn(&mut SessionWord);

pub async fn what_does_not_fit_books_nothing(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 0).await.id;
    let other = opened(&*store, user).await.id;
    say(&*store, "other", session(other, OrderStatus::Paid)).await;
    let eur = Money {
        currency: Currency::parse("eur").unwrap(),
        ..usd(CENTS)
    };
    let wrong: [(&str, Lie); 6] = [
        ("was about 9.99 USD, the order about 10.00 USD", |w| {
            w.total = Some(usd(999))
        }),
        ("does not say what was paid", |w| w.total = None),
        ("is in live mode, the order in test mode", |w| w.livemode = true),
        ("is of sandbox, the order of stripe", |w| w.payment = Payment::Sandbox),
        ("claims this order, whose session is cs_", |w| {
            w.session_id = "cs_stranger".into()
        }),
        ("was about 0.01 USD", |w| w.total = Some(usd(1))),
    ];
    for (n, (trouble, change)) in wrong.into_iter().enumerate() {
        let id = opened(&*store, user).await.id;
        let mut word = session(id, OrderStatus::Paid);
        change(&mut word);
        let said = say(&*store, &format!("w{n}"), word).await;
        let said = said.trouble.unwrap_or_default();
        assert!(said.contains(trouble), "{said}");
        let stored = order(&*store, id).await;
        assert_eq!(
            (stored.status, stored.trouble.as_deref()),
            (OrderStatus::Open, Some(said.as_str()))
        );
    }
    let id = opened(&*store, user).await.id;
    let word = SessionWord {
        total: Some(eur),
        ..session(id, OrderStatus::Paid)
    };
    assert!(
        say(&*store, "eur", word)
            .await
            .trouble
            .unwrap_or_default()
            .contains("10.00 EUR")
    );
    let id = opened(&*store, user).await.id;
    let word = SessionWord {
        payment_intent: Some(intent_of(other)),
        ..session(id, OrderStatus::Paid)
    };
    assert!(
        say(&*store, "pi", word)
            .await
            .trouble
            .unwrap_or_default()
            .contains("is that of order")
    );
    // A stranger's session is nobody's, and leaves nothing.
    let word = session(OrderId::new(), OrderStatus::Paid);
    assert_eq!(say(&*store, "stranger", word).await, Recorded::default());
    assert_eq!(money(&*store, user).await, (CREDITS, 0));
    let filter = OrderFilter {
        trouble: true,
        limit: 100,
        ..OrderFilter::default()
    };
    assert_eq!(store.orders(filter).await.unwrap().len(), 8);
    in_order(&*store).await;
}

pub async fn a_spent_purchase_that_goes_back_becomes_a_debt(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 0).await.id;
    let first = opened(&*store, user).await.id;
    say(&*store, "paid", session(first, OrderStatus::Paid)).await;
    submit(&*store, request(user, 80)).await;
    let taken = say(&*store, "back", back(first, MoneyBackKind::Refund, "re", CENTS, false)).await;
    assert_eq!((taken.reversed, taken.outcome()), (Credits(CREDITS), "taken back"));
    let balance = store.balance(user).await.unwrap().unwrap();
    assert_eq!((balance.available(), balance.debt), (Credits(-80), Credits(80)));
    in_order(&*store).await;
    // The next purchase pays it.
    let second = opened(&*store, user).await.id;
    say(&*store, "again", session(second, OrderStatus::Paid)).await;
    let balance = store.balance(user).await.unwrap().unwrap();
    assert_eq!((balance.available(), balance.debt), (Credits(20), Credits(0)));
    // And a refund that failed gives back what it took.
    let given = say(&*store, "failed", back(first, MoneyBackKind::Refund, "re", CENTS, true)).await;
    assert_eq!((given.reversed, given.outcome()), (Credits(-CREDITS), "given back"));
    assert_eq!(store.balance(user).await.unwrap().unwrap().available(), Credits(120));
    in_order(&*store).await;
}

pub async fn money_in_another_currency_is_an_operator_s(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 0).await.id;
    let eur = |id| match back(id, MoneyBackKind::Refund, "re", 500, false) {
        PaymentWord::MoneyBack(word) => PaymentWord::MoneyBack(MoneyBack {
            currency: Currency::parse("eur").unwrap(),
            ..word
        }),
        other => other,
    };
    let (before, after) = (opened(&*store, user).await.id, opened(&*store, user).await.id);
    say(&*store, "1", eur(before)).await;
    say(&*store, "2", session(before, OrderStatus::Paid)).await;
    say(&*store, "3", session(after, OrderStatus::Paid)).await;
    say(&*store, "4", eur(after)).await;
    for id in [before, after] {
        let stored = order(&*store, id).await;
        assert!(
            stored
                .trouble
                .unwrap_or_default()
                .contains("is in EUR, the order in USD")
        );
        assert_eq!(stored.reversed, Credits(0));
    }
    assert_eq!(money(&*store, user).await, (2 * CREDITS, 0));
    in_order(&*store).await;
}

/// A payment and its refund at the same moment, for orders that nobody knows to be paid yet: neither is overlooked.
pub async fn a_payment_and_its_refund_at_once_are_both_booked(stage: &dyn Stage) {
    let store = stage.open().await;
    let user = somebody(&*store, 0).await.id;
    for n in 0..30 {
        let id = opened(&*store, user).await.id;
        let word = back(id, MoneyBackKind::Refund, "re", CENTS, false);
        let calls = [
            notice(&format!("p{n}"), session(id, OrderStatus::Paid)),
            notice(&format!("r{n}"), word),
            notice(&format!("p{n}"), session(id, OrderStatus::Paid)),
        ];
        let tasks = calls.map(|call| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.record_payment(call).await })
        });
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        let stored = order(&*store, id).await;
        assert_eq!((stored.status, stored.reversed), (OrderStatus::Paid, Credits(CREDITS)));
    }
    assert_eq!(money(&*store, user).await, (0, 0));
    in_order(&*store).await;
}

/// A word of a history, and its event.
type Said = fn(OrderId) -> PaymentWord;

const PAID: Said = |id| PaymentWord::Session(session(id, OrderStatus::Paid));
const PROCESSING: Said = |id| PaymentWord::Session(session(id, OrderStatus::Processing));
/// Two refunds of 400 and 300, seen from the charge.
const TOTAL: Said = |id| back(id, MoneyBackKind::RefundedTotal, "ch", 700, false);
const REFUND: Said = |id| back(id, MoneyBackKind::Refund, "re", 400, false);
const REFUND_FAILED: Said = |id| back(id, MoneyBackKind::Refund, "re", 400, true);
const DISPUTE: Said = |id| back(id, MoneyBackKind::Dispute, "du", CENTS, false);
const DISPUTE_WON: Said = |id| back(id, MoneyBackKind::Dispute, "du", CENTS, true);

/// What must come of a set of words, computed the naive way: by looking at all of them at once.
fn naive(order: OrderId, words: &[Said]) -> (OrderStatus, i64) {
    let mut status = OrderStatus::Open;
    let mut backs: BTreeMap<String, (MoneyBackKind, i64, bool)> = BTreeMap::new();
    for word in words {
        match word(order) {
            PaymentWord::Session(word) => status = status.max(word.status),
            PaymentWord::MoneyBack(word) => {
                let kept = backs.entry(word.id).or_insert((word.kind, 0, false));
                *kept = (word.kind, kept.1.max(word.amount_minor), kept.2 | word.void);
            }
        }
    }
    let of = |kind, void| -> i64 {
        let chosen = backs.values().filter(|b| b.0 == kind && b.2 == void);
        chosen.map(|b| b.1).sum()
    };
    let refunds = of(MoneyBackKind::Refund, false);
    let total = of(MoneyBackKind::RefundedTotal, false) - of(MoneyBackKind::Refund, true);
    let gone = (refunds.max(total) + of(MoneyBackKind::Dispute, false)).min(CENTS);
    match status {
        OrderStatus::Paid => (status, CREDITS - CREDITS * gone / CENTS),
        status => (status, 0),
    }
}

/// Says the words in each of `orders` (indices into `words`), a buyer and an order for each, and compares.
async fn every_history_ends_alike(store: &Arc<dyn Store>, words: &[Said], histories: Vec<Vec<usize>>) {
    let ends = stream::iter(histories.into_iter().enumerate()).map(|(n, history)| async move {
        let user = somebody(&**store, 0).await.id;
        let id = opened(&**store, user).await.id;
        for &word in &history {
            // The same word is the same event, however often it is said.
            say(&**store, &format!("{n}:{word}:{id}"), words[word](id)).await;
        }
        let stored = order(&**store, id).await;
        let balance = store.balance(user).await.unwrap().unwrap();
        let said: Vec<Said> = history.iter().map(|&word| words[word]).collect();
        let expected = naive(id, &said);
        assert_eq!((stored.status, balance.available().0), expected, "{history:?}");
        assert_eq!(stored.trouble, None, "{history:?}");
    });
    let count = ends.buffer_unordered(256).count().await;
    assert!(count > 0);
    in_order(&**store).await;
}

/// All orders of `0..n`.
fn permutations(n: usize) -> Vec<Vec<usize>> {
    match n {
        0 => vec![vec![]],
        _ => permutations(n - 1)
            .into_iter()
            .flat_map(|shorter| {
                (0..n).map(move |at| {
                    let mut longer = shorter.clone();
                    longer.insert(at, n - 1);
                    longer
                })
            })
            .collect(),
    }
}

pub async fn words_in_every_order_end_alike(stage: &dyn Stage) {
    let store = stage.open().await;
    let words = [PAID, REFUND, TOTAL, REFUND_FAILED, DISPUTE];
    every_history_ends_alike(&store, &words, permutations(words.len())).await;
}

/// All of them, in every order: thousands of histories. For a database that is quick with them.
pub async fn all_words_in_every_order_end_alike(stage: &dyn Stage) {
    let store = stage.open().await;
    let won = [PROCESSING, PAID, TOTAL, REFUND, REFUND_FAILED, DISPUTE, DISPUTE_WON];
    every_history_ends_alike(&store, &won, permutations(won.len())).await;
    let lost = [PROCESSING, PAID, TOTAL, REFUND_FAILED, DISPUTE];
    every_history_ends_alike(&store, &lost, permutations(lost.len())).await;
}

/// Any words, in any order, each of them up to five times.
pub async fn words_said_again_and_again_end_alike(stage: &dyn Stage) {
    let store = stage.open().await;
    let words = [PROCESSING, PAID, TOTAL, REFUND, REFUND_FAILED, DISPUTE, DISPUTE_WON];
    // A small generator of our own: the same histories each time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut histories = Vec::new();
    for _ in 0..150 {
        let mut history = Vec::new();
        for word in 0..words.len() {
            if next(4) > 0 {
                history.extend(vec![word; 1 + next(5)]);
            }
        }
        history.sort_by_cached_key(|_| next(1 << 30));
        histories.push(history);
    }
    every_history_ends_alike(&store, &words, histories).await;
}
