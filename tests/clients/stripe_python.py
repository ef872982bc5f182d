"""Stripe's own Python library against a Stripe-shaped server, and its signatures against Velro's webhook.

The library is not changed: its base address is an option of the client.
"""

import json
import os
import time
import urllib.error
import urllib.request

import stripe

KEY = os.environ["TEST_SECRET_KEY"]
SECRET = os.environ["TEST_WEBHOOK_SECRET"]
client = stripe.StripeClient(KEY, base_addresses={"api": os.environ["TEST_API_URL"]}, max_network_retries=0)


def params(reference="order-py"):
    return {
        "mode": "payment",
        "success_url": "https://app.example/ok?s={CHECKOUT_SESSION_ID}",
        "cancel_url": "https://app.example/no",
        "client_reference_id": reference,
        "line_items": [
            {
                "quantity": 1,
                "price_data": {"currency": "usd", "unit_amount": 999, "product_data": {"name": "Credits"}},
            }
        ],
        "adaptive_pricing": {"enabled": False},
        "metadata": {"order_id": reference},
        "payment_intent_data": {"metadata": {"order_id": reference}},
    }


def a_session_is_made_found_and_expired():
    session = client.v1.checkout.sessions.create(params=params())
    assert session.id.startswith("cs_test_") and session.url.startswith("https://"), session
    assert (session.status, session.payment_status, session.amount_total) == ("open", "unpaid", 999), session
    again = client.v1.checkout.sessions.retrieve(session.id)
    assert again.client_reference_id == "order-py" and again.metadata["order_id"] == "order-py"
    listed = client.v1.checkout.sessions.list(params={"limit": 1, "created": {"gte": session.created}})
    assert [s.id for s in listed.data] == [session.id], listed
    expired = client.v1.checkout.sessions.expire(session.id)
    assert expired.status == "expired" and expired.url is None


def an_idempotency_key_makes_one_session():
    options = {"idempotency_key": "py-key"}
    first = client.v1.checkout.sessions.create(params=params(), options=options)
    assert client.v1.checkout.sessions.create(params=params(), options=options).id == first.id
    try:
        client.v1.checkout.sessions.create(params=params("other"), options=options)
        raise AssertionError("no error")
    except stripe.IdempotencyError as error:
        assert error.http_status == 400


def errors_are_stripe_s():
    try:
        client.v1.checkout.sessions.retrieve("cs_test_nothing")
        raise AssertionError("no error")
    except stripe.InvalidRequestError as error:
        assert error.http_status == 404 and error.code == "resource_missing", error
    try:
        client.v1.checkout.sessions.create(params={**params(), "colour": "red"})
        raise AssertionError("no error")
    except stripe.InvalidRequestError as error:
        assert error.code == "parameter_unknown" and error.param == "colour", error
    stranger = stripe.StripeClient("sk_test_stranger", base_addresses={"api": os.environ["TEST_API_URL"]})
    try:
        stranger.v1.checkout.sessions.retrieve("x")
        raise AssertionError("no error")
    except stripe.AuthenticationError as error:
        assert error.http_status == 401


def a_paid_session_is_refunded():
    intent = os.environ["TEST_PAYMENT_INTENT"]
    refund = client.v1.refunds.create(params={"payment_intent": intent, "amount": 100})
    assert refund.status == "succeeded" and refund.amount == 100
    ids = [r.id for r in client.v1.refunds.list(params={"payment_intent": intent}).auto_paging_iter()]
    assert ids == [refund.id], ids
    assert list(client.v1.disputes.list(params={"payment_intent": intent}).data) == []


def the_simulator_s_signature_is_accepted():
    body, header = os.environ["TEST_EVENT"], os.environ["TEST_SIGNATURE"]
    event = client.construct_event(body.encode(), header, SECRET)
    assert event.type == "checkout.session.completed" and event.data.object.payment_status == "paid"


def deliver(body, header):
    request = urllib.request.Request(
        os.environ["TEST_WEBHOOK_URL"], data=body.encode(), headers={"Stripe-Signature": header}, method="POST"
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def velro_accepts_what_the_library_signs():
    body = os.environ["TEST_EVENT"]
    sign = stripe.WebhookSignature.generate_signature_header
    bad = [
        sign(body, "whsec_wrong"),
        sign(body, SECRET, timestamp=int(time.time()) - 400),
        sign(body, SECRET, timestamp=int(time.time()) + 4000),
        sign(body + " ", SECRET),
    ]
    for header in bad:
        status, answer = deliver(body, header)
        assert status == 400 and answer["code"] == "bad_request", answer
    status, answer = deliver(body, sign(body, SECRET))
    assert (status, answer["status"]) == (200, "booked"), answer
    status, answer = deliver(body, sign(body, SECRET))
    assert (status, answer["status"]) == (200, "replayed"), answer


for check in [
    a_session_is_made_found_and_expired,
    an_idempotency_key_makes_one_session,
    errors_are_stripe_s,
    a_paid_session_is_refunded,
    the_simulator_s_signature_is_accepted,
    velro_accepts_what_the_library_signs,
]:
    check()
    print("ok", check.__name__)
