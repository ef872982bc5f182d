//! Odd paths, headers, ranges and forms, as fuzzers and scanners send them: never a 5xx, never an error in the log.

use reqwest::Method;
use serde_json::json;
use tests::harness::{SUBMIT, Server, id_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_and_ranges_that_do_not_hold_keep_their_status() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let id = ada.submit_quick("x").await;
    let done = ada.wait_for(&id, "completed").await;
    let url = done["output_urls"][0].as_str().unwrap();
    let fetch = |name: &'static str, value: &'static str| {
        let request = server.anonymous().request(Method::GET, url).header(name, value);
        async { server.anonymous().send(request).await }
    };
    for range in [
        "x",
        "bytes=",
        "bytes=-",
        "bytes=-0",
        "bytes=5-1",
        "bytes=99999999999999999999-",
        "bytes=999999999-",
    ] {
        let refused = fetch("Range", range).await;
        assert!(refused.header("content-range").starts_with("bytes */"), "{range}");
        // The permission to keep is for the file, not for the refusal.
        assert_eq!(refused.header("cache-control"), "no-store", "{range}");
        assert_eq!(refused.header("content-disposition"), "", "{range}");
        refused.problem(416, "range_not_satisfiable");
    }
    fetch("If-Match", "\"another\"")
        .await
        .problem(412, "precondition_failed");
    assert_eq!(
        fetch("Range", "pages=1-2").await.status,
        200,
        "a foreign unit is ignored"
    );
    assert_eq!(fetch("Range", "bytes=0-0").await.status, 206);
    // The signed URL is the permission, for any page; whose cookies it brings does not matter.
    let whole = fetch("Origin", "https://example.com").await;
    assert_eq!(whole.header("access-control-allow-origin"), "*");
    assert_eq!(whole.header("access-control-allow-credentials"), "");
    assert!(!server.log_text().contains(" ERROR "), "a good fetch is no error");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_paths_are_not_found_or_not_valid() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let long = "a".repeat(5000);
    let odd = [
        "%00",
        "%2F",
        "%2f..%2f",
        "%ff%fe",
        "%C0%AF",
        "%zz",
        "%25",
        "%2e%2e%2f",
        "%0a%0d",
        "%E2%80%AE",
        "*",
        ";a=b",
        &long,
        "00000000-0000-0000-0000-000000000000",
    ];
    let document = ada.get("/openapi.json").await.ok();
    let mut tried = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let Some((head, rest)) = path.split_once('{') else {
            continue;
        };
        let tail = rest.rsplit_once('}').unwrap().1;
        for method in item.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            for part in odd {
                let request = ada.request(method.clone(), &format!("{head}{part}{tail}"));
                let reply = ada
                    .send(request.header("Content-Type", "application/json").body("{}"))
                    .await;
                assert!(
                    reply.status.is_client_error(),
                    "{method} {head}{part:.20}{tail}: {}",
                    reply.status
                );
                tried += 1;
            }
        }
    }
    assert!(tried > 200, "{tried}");
    assert!(!server.log_text().contains(" ERROR "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_headers_are_ignored_or_explained() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let parameters = json!({"latency_ms": 0, "image_size": "square"});
    let good = json!({"model_id": "sandbox/image", "prompt": "x", "parameters": parameters});
    let latin: &[u8] = b"\xff";
    let long = "a".repeat(30_000);
    let submit = |name: &'static str, value: &[u8]| {
        let request = ada.request(Method::POST, SUBMIT).json(&good).header(name, value);
        async { ada.send(request).await }
    };
    for key in [b"".as_slice(), b"\t", latin, long.as_bytes()] {
        submit("Idempotency-Key", key).await.invalid("header.idempotency-key");
    }
    let mut accepted = Vec::new();
    for name in [
        "Last-Event-ID",
        "Range",
        "If-None-Match",
        "Accept",
        "X-Request-Id",
        "Origin",
        "Cookie",
        "Forwarded",
    ] {
        accepted.push(id_of(&submit(name, latin).await.ok()));
        assert_eq!(
            ada.send(ada.request(Method::GET, "/api/v1/models").header(name, latin))
                .await
                .status,
            200,
            "{name}"
        );
    }
    for value in [b"Bearer".as_slice(), b"Bearer \xff", b"Basic x", latin] {
        let request = ada.without_token().request(Method::GET, "/api/v1/auth/me");
        ada.send(request.header("Authorization", value))
            .await
            .problem(401, "unauthorized");
    }
    for id in &accepted {
        ada.wait_for(id, "completed").await;
        for last in [
            "-1",
            "99999999999999999999",
            "1e5",
            "9223372036854775807",
            "-9223372036854775808",
        ] {
            let request = ada.stream_request(id).header("Last-Event-ID", last);
            let status = ada.send(request).await.status.as_u16();
            assert!([200, 204].contains(&status), "{last}: {status}");
        }
    }
    assert!(!server.log_text().contains(" ERROR "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_forms_are_refused() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let part = |head: &str, body: &str| format!("--x\r\nContent-Disposition: form-data{head}\r\n\r\n{body}\r\n");
    let call = part("; name=\"model_id\"", "sandbox/image") + &part("; name=\"prompt\"", "p");
    let file = |name: &str| part(&format!("; name=\"reference_image\"; filename=\"{name}\""), "abc");
    let text = |name: &str, text: &str| part(&format!("; name=\"{name}\""), text);
    let multipart = "multipart/form-data; boundary=x";
    let form = "application/x-www-form-urlencoded";
    let table: Vec<(&str, String, &[u16])> = vec![
        (multipart, "--x--\r\n".into(), &[422]),
        (multipart, call.clone(), &[400]),
        ("multipart/form-data", format!("{call}--x--\r\n"), &[400]),
        ("multipart/form-data; boundary=", format!("{call}--x--\r\n"), &[400]),
        (
            multipart,
            format!("{call}{}--x--\r\n", file("../../../etc/passwd")),
            &[422],
        ),
        (multipart, format!("{call}{}--x--\r\n", file("a.b/c")), &[422]),
        (
            multipart,
            format!("{call}{}--x--\r\n", file(&"a".repeat(5000))),
            &[400, 422],
        ),
        (
            multipart,
            format!("{call}{}--x--\r\n", text("a", "b").repeat(40)),
            &[413],
        ),
        (
            multipart,
            format!("{call}{}--x--\r\n", text("parameters", &"[".repeat(100_000))),
            &[422],
        ),
        (
            multipart,
            format!("{call}{}--x--\r\n", text("parameters", "{\"seed\": 1e999}")),
            &[422],
        ),
        (
            multipart,
            format!("{call}{}--x--\r\n", text("project_id", "\0")),
            &[422],
        ),
        (form, "%".into(), &[422]),
        (form, "%zz=%ff&model_id=%ff&prompt=%00".into(), &[422]),
        (form, "&".repeat(100_000), &[422]),
        (form, "model_id[]=x&prompt[a]=y".into(), &[422]),
    ];
    for (kind, body, statuses) in table {
        let request = ada
            .request(Method::POST, "/api/v1/generations")
            .header("Content-Type", kind);
        let reply = ada.send(request.body(body.clone())).await;
        assert!(
            statuses.contains(&reply.status.as_u16()),
            "{kind} {body:.200}: {}",
            reply.status
        );
        assert!(
            reply.header("content-type").starts_with("application/problem+json"),
            "{body:.200}"
        );
    }
    assert_eq!(ada.statement().await, ["bonus +1000"]);
}
