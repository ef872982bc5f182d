//! The till of a development server: a page that moves no money, and only there.

use super::*;

/// A development server without Stripe.
fn development() -> Options {
    Options::new()
        .env("CREDIT_PACKAGES", PACKAGES)
        .env("DEFAULT_USER_CREDITS", "0")
}

async fn checkout(ada: &Client, body: Value) -> (String, String) {
    let bought = ada.post(PURCHASE, &body).await.ok();
    (order_of(&bought), bought["checkout_url"].as_str().unwrap().to_owned())
}

async fn click(nobody: &Client, url: &str, action: &str) -> Reply {
    let request = nobody.request(Method::POST, url);
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    nobody.send(request.body(format!("action={action}"))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_clicked_is_booked_once() {
    let server = Server::with(development()).await;
    let (ada, nobody) = (server.register("ada").await, server.anonymous());
    assert_eq!(ada.get("/api/v1/credits/packages").await.ok()["payment"], "sandbox");
    let (order, url) = checkout(&ada, json!({"package_id": "thousand"})).await;
    assert!(url.starts_with(&server.base_url), "{url}");

    // A buyer's browser has no token of ours.
    let page = nobody.get(&url).await.expect(200);
    let text = page.text();
    for part in [
        "no money moves",
        "9.99 USD",
        "A thousand",
        "1000",
        "Pay 9.99 USD",
        "Decline",
        "Cancel",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let policy = page.header("content-security-policy");
    let nonce = text.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(
        policy.starts_with("default-src 'none'") && policy.contains(nonce),
        "{policy}"
    );
    assert!(policy.contains("form-action 'self' http"), "{policy}");
    for foreign in ["src=", "@import", "url(", "<script", "{{"] {
        assert!(!text.contains(foreign), "{foreign} in {text}");
    }

    for _ in 0..3 {
        let paid = click(&nobody, &url, "pay").await.expect(303);
        assert!(paid.header("location").ends_with("checkout-result?outcome=success"));
    }
    assert_eq!(ada.statement().await, ["purchase +1000"]);
    assert_eq!(status(&ada, &order).await, "completed");
    assert!(nobody.get(&url).await.expect(200).text().contains("is paid"));
    click(&nobody, &url, "decline").await.problem(409, "conflict");
    let shown = ada.get(&format!("/api/v1/credits/orders/{order}")).await.ok();
    assert_eq!(shown["checkout_url"], Value::Null);

    let pages = json!({"package_id": "hundred", "success_url": "http://localhost:3000/ok?s={CHECKOUT_SESSION_ID}",
        "cancel_url": "http://localhost:3000/no"});
    for (action, to, ends) in [
        ("pay", "http://localhost:3000/ok?s=sandbox_", "completed"),
        ("decline", "http://localhost:3000/no", "failed"),
        ("cancel", "http://localhost:3000/no", "cancelled"),
    ] {
        let (order, url) = checkout(&ada, pages.clone()).await;
        let reply = click(&nobody, &url, action).await.expect(303);
        assert!(reply.header("location").starts_with(to), "{}", reply.header("location"));
        assert_eq!(status(&ada, &order).await, ends);
    }
    assert_eq!(ada.balance().await, 1100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_link_is_the_permission_and_holds_for_its_order_only() {
    let server = Server::with(development()).await;
    let (ada, nobody) = (server.register("ada").await, server.anonymous());
    let (first, url) = checkout(&ada, json!({"package_id": "hundred"})).await;
    let (second, _) = checkout(&ada, json!({"package_id": "thousand"})).await;
    let swapped = url.replace(&first, &second);
    let (bare, token) = url.split_once("token=").unwrap();
    for bad in [
        swapped,
        format!("{bare}token="),
        format!("{bare}token={}", &token[1..]),
        format!("{url}x"),
    ] {
        nobody.get(&bad).await.problem(403, "forbidden");
        click(&nobody, &bad, "pay").await.problem(403, "forbidden");
    }
    click(&nobody, &url, "steal").await.invalid("body.action");
    nobody.post_empty(&url).await.problem(400, "bad_request");
    assert_eq!(ada.balance().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_development_and_beside_stripe_there_is_no_such_page() {
    let sim = StripeSim::start().await.unwrap();
    let mut server = Server::with(development()).await;
    let ada = server.register("ada").await;
    let (_, url) = checkout(&ada, json!({"package_id": "hundred"})).await;
    let stripe = |options: Options| {
        options
            .env("STRIPE_SECRET_KEY", SECRET_KEY)
            .env("STRIPE_WEBHOOK_SECRET", WEBHOOK_SECRET)
            .env("STRIPE_API_URL", &sim.base_url)
    };
    let changes: [&dyn Fn(Options) -> Options; 2] = [&|options| options.env("ENVIRONMENT", "production"), &stripe];
    for change in changes {
        server.terminate();
        server.change(change);
        server.restart().await;
        server.anonymous().get(&url).await.problem(404, "not_found");
        click(&server.anonymous(), &url, "pay").await.problem(404, "not_found");
    }
    assert_eq!(ada.balance().await, 0);
}
