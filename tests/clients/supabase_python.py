"""Supabase's own Python client against a GoTrue-shaped server, and its sessions at Velro.

The client is not changed: it takes the URL of the account service as an argument.
"""

import json
import os
import time
import urllib.error
import urllib.request

from supabase_auth import SyncGoTrueClient
from supabase_auth.errors import AuthApiError, AuthWeakPasswordError

AUTH_URL = os.environ["TEST_AUTH_URL"]
VELRO_URL = os.environ["TEST_VELRO_URL"]
ANON, SERVICE = os.environ["TEST_ANON_KEY"], os.environ["TEST_SERVICE_KEY"]
PASSWORD = os.environ["TEST_PASSWORD"]


def client(key=ANON):
    headers = {"apikey": key, "Authorization": f"Bearer {key}"}
    return SyncGoTrueClient(url=AUTH_URL, headers=headers, auto_refresh_token=False, persist_session=False)


def fails(call, status, code):
    """Asserts that the call raises the client's error with this status and code."""
    try:
        call()
    except (AuthApiError, AuthWeakPasswordError) as error:
        assert (error.status, error.code) == (status, code), (error.status, error.code, error)
        return error
    raise AssertionError(f"no error, expected {status} {code}")


def velro(method, path, token, body=None):
    """A call of Velro with a token of the client; gives status and answer."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"{VELRO_URL}{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def sign_up_and_work():
    auth = client()
    answer = auth.sign_up({"email": "py@example.com", "password": PASSWORD, "options": {"data": {"full_name": "Py Thon"}}})
    session, user = answer.session, answer.user
    assert session.token_type == "bearer" and session.expires_in == 3600, session
    assert user.email == "py@example.com" and user.user_metadata["full_name"] == "Py Thon"
    assert user.identities[0].provider == "email"
    print("ok sign up")
    claims = auth.get_claims(session.access_token)["claims"]
    assert claims["sub"] == user.id and claims["iss"] == AUTH_URL, claims
    print("ok claims by the published keys")
    status, me = velro("GET", "/api/v1/auth/me", session.access_token)
    assert status == 200, me
    assert (me["id"], me["email"], me["full_name"], me["credits_balance"]) == (user.id, user.email, "Py Thon", 1000), me
    job = {"model_id": "sandbox/image", "prompt": "py", "parameters": {"latency_ms": 0, "image_size": "square"}}
    status, submitted = velro("POST", "/api/v1/generations/async/submit", session.access_token, job)
    assert status == 200 and submitted["status"] == "queued", submitted
    path = f"/api/v1/generations/async/{submitted['generation_id']}/status"
    while velro("GET", path, session.access_token)[1]["status"] != "completed":
        time.sleep(0.05)
    print("ok its token works at Velro")
    refreshed = auth.refresh_session()
    assert refreshed.session.refresh_token != session.refresh_token
    assert velro("GET", "/api/v1/credits/balance", refreshed.session.access_token)[0] == 200
    fails(lambda: client().refresh_session(session.refresh_token), 400, "refresh_token_already_used")
    print("ok refresh, once")


def sign_in_change_and_leave():
    auth = client()
    session = auth.sign_in_with_password({"email": "py@example.com", "password": PASSWORD}).session
    auth.update_user({"data": {"full_name": "Py Two"}})
    assert auth.get_user().user.user_metadata["full_name"] == "Py Two"
    assert velro("GET", "/api/v1/auth/me", session.access_token)[1]["full_name"] == "Py Two"
    print("ok a new name is Velro's too")
    auth.sign_out({"scope": "local"})
    fails(lambda: client().get_user(session.access_token), 403, "session_not_found")
    assert velro("GET", "/api/v1/auth/me", session.access_token)[0] == 401
    print("ok sign out")


def refusals():
    fails(lambda: client().sign_in_with_password({"email": "py@example.com", "password": "wrong"}), 400, "invalid_credentials")
    fails(lambda: client().sign_up({"email": "py@example.com", "password": PASSWORD}), 422, "user_already_exists")
    weak = fails(lambda: client().sign_up({"email": "weak@example.com", "password": "x"}), 422, "weak_password")
    assert weak.reasons == ["length"], weak.reasons
    fails(lambda: client().refresh_session("unknown-token-1"), 400, "refresh_token_not_found")
    print("ok refusals")


def admin():
    user = client(SERVICE).admin.create_user(
        {"email": "made@example.com", "password": PASSWORD, "email_confirm": True, "app_metadata": {"team": "a"}}
    ).user
    assert user.email_confirmed_at and user.app_metadata["team"] == "a", user
    fails(lambda: client(SERVICE).admin.create_user({"email": "made@example.com", "password": PASSWORD}), 422, "email_exists")
    fails(lambda: client().admin.create_user({"email": "b@example.com", "password": PASSWORD}), 403, "not_admin")
    print("ok admin")


def a_session_of_velro():
    body = {"email": "velro-py@example.com", "password": PASSWORD, "full_name": "Vel Ro"}
    status, session = velro("POST", "/api/v1/auth/register", "none", body)
    assert status == 200, session
    auth = client()
    auth.set_session(session["access_token"], session["refresh_token"])
    assert auth.get_user().user.id == session["user"]["id"]
    assert auth.refresh_session().user.user_metadata["full_name"] == "Vel Ro"
    print("ok a session of Velro is one of the client's")


sign_up_and_work()
sign_in_change_and_leave()
refusals()
admin()
a_session_of_velro()
