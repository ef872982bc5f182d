//! Fetching delivered files.

use super::*;
use crate::upstream::DownloadError;
use tokio::fs::File;

/// What is written, or the error.
async fn fetch(upstream: &Upstream, url: &str, limit: u64) -> Result<Vec<u8>, DownloadError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let mut file = File::create(&path).await.unwrap();
    let downloaded = upstream
        .download(&provider("files.test", None), url, limit, &mut file)
        .await?;
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(downloaded.bytes, bytes.len() as u64);
    Ok(bytes)
}

fn is_permanent(error: &DownloadError) -> bool {
    matches!(error, DownloadError::Permanent(_))
}

#[tokio::test]
async fn follows_a_few_redirects() {
    let server = Server::routes(vec![
        ("/file", Does::answer(200, "", b"the file")),
        ("/to-file", Does::answer(302, "location: /file?x=1\r\n", b"")),
        ("/twice", Does::answer(307, "location: to-file\r\n", b"")),
        ("/round", Does::answer(302, "location: /round\r\n", b"")),
        ("/local", Does::answer(302, "location: file:///etc/passwd\r\n", b"")),
        (
            "/login",
            Does::answer(302, "location: http://user:pw@127.0.0.1/\r\n", b""),
        ),
        ("/void", Does::answer(302, "", b"")),
    ])
    .await;
    let upstream = upstream(true);
    assert_eq!(fetch(&upstream, &server.url("/twice"), 100).await.unwrap(), b"the file");
    assert!(
        server
            .requests()
            .iter()
            .all(|r| !r.to_lowercase().contains("authorization"))
    );
    for path in ["/round", "/local", "/login", "/void"] {
        let error = fetch(&upstream, &server.url(path), 100).await.unwrap_err();
        assert!(is_permanent(&error), "{path}: {error}");
    }
    assert_eq!(
        server.requests().iter().filter(|r| r.starts_with("GET /round")).count(),
        6
    );
}

#[tokio::test]
async fn private_addresses_are_refused() {
    let server = Server::start(Does::answer(200, "", b"internal")).await;
    let upstream = upstream(false);
    let port = server.address.port();
    for url in [
        server.url("/"),
        format!("http://localhost:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
    ] {
        let error = fetch(&upstream, &url, 100).await.unwrap_err();
        assert!(is_permanent(&error), "{url}: {error}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn size_is_bounded_and_half_a_file_is_none() {
    let mut endless = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
    endless.extend_from_slice(&[b'x'; 200]);
    let server = Server::routes(vec![
        ("/declared", Does::answer(200, "", &[b'x'; 200])),
        ("/endless", Does::Say(endless)),
        (
            "/half",
            Does::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhalf".to_vec()),
        ),
        ("/empty", Does::answer(200, "", b"")),
        ("/broken", Does::ReadAndClose),
        ("/gone", Does::answer(404, "", b"")),
        ("/busy", Does::answer(503, "", b"")),
        ("/denied", Does::answer(403, "", b"")),
    ])
    .await;
    let upstream = upstream(true);
    for (path, permanent) in [
        ("/declared", true),
        ("/endless", true),
        ("/denied", true),
        ("/half", false),
        ("/empty", false),
        ("/broken", false),
        ("/gone", false),
        ("/busy", false),
    ] {
        let error = fetch(&upstream, &server.url(path), 100).await.unwrap_err();
        assert_eq!(is_permanent(&error), permanent, "{path}: {error}");
    }
}

#[tokio::test]
async fn data_urls() {
    let upstream = upstream(false);
    for (url, want) in [
        ("data:image/png;base64,aGVsbG8=", &b"hello"[..]),
        ("data:;base64,aGVsbG8", b"hello"),
        ("DATA:text/plain,a%20b", b"a b"),
    ] {
        assert_eq!(fetch(&upstream, url, 100).await.unwrap(), want, "{url}");
    }
    for url in [
        "data:image/png;base64,****",
        "data:nothing",
        "file:///etc/passwd",
        "no url",
        "javascript:1",
    ] {
        assert!(is_permanent(&fetch(&upstream, url, 100).await.unwrap_err()), "{url}");
    }
    assert!(is_permanent(&fetch(&upstream, "data:,123456", 5).await.unwrap_err()));
}

#[tokio::test]
async fn the_sandbox_draws() {
    let url = "sandbox://draw/image?seed=1&index=0&width=64&height=64&prompt=fox";
    let png = fetch(&upstream(false), url, 1 << 20).await.unwrap();
    assert!(png.starts_with(b"\x89PNG"));
    assert!(is_permanent(
        &fetch(&upstream(false), "sandbox://draw/image", 100).await.unwrap_err()
    ));
}
